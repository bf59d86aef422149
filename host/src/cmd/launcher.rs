//! Upstream's flags that say nothing to us: accepted, so that old command lines go on working.

/// Flags of upstream's launcher, loader workers, FID evaluation and discrete variant.
#[derive(clap::Args, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches, one to one")]
pub(crate) struct Launcher {
    #[arg(long = "num_workers", alias = "num-workers", hide = true)]
    num_workers: Option<String>,
    #[arg(long = "pin_mem", alias = "pin-mem", hide = true)]
    pin_mem: bool,
    #[arg(long = "no_pin_mem", alias = "no-pin-mem", hide = true)]
    no_pin_mem: bool,
    #[arg(long = "world_size", alias = "world-size", hide = true)]
    world_size: Option<String>,
    #[arg(long = "local_rank", alias = "local-rank", hide = true, allow_hyphen_values = true)]
    local_rank: Option<String>,
    #[arg(long = "dist_on_itp", alias = "dist-on-itp", hide = true)]
    dist_on_itp: bool,
    #[arg(long = "dist_url", alias = "dist-url", hide = true)]
    dist_url: Option<String>,
    #[arg(long, hide = true)]
    nodes: Option<String>,
    #[arg(long, hide = true)]
    ngpus: Option<String>,
    #[arg(long, hide = true)]
    timeout: Option<String>,
    #[arg(long = "job_dir", alias = "job-dir", hide = true)]
    job_dir: Option<String>,
    #[arg(long = "shared_dir", alias = "shared-dir", hide = true)]
    shared_dir: Option<String>,
    #[arg(long, hide = true)]
    partition: Option<String>,
    #[arg(long, hide = true)]
    constraint: Option<String>,
    #[arg(long, hide = true)]
    comment: Option<String>,
    #[arg(long, hide = true)]
    qos: Option<String>,
    #[arg(long, hide = true)]
    account: Option<String>,
    #[arg(long, hide = true)]
    exclude: Option<String>,
    #[arg(long = "fid_samples", alias = "fid-samples", hide = true)]
    fid_samples: Option<String>,
    #[arg(long = "save_fid_samples", alias = "save-fid-samples", hide = true)]
    save_fid_samples: bool,
    #[arg(long = "discrete_fm_steps", alias = "discrete-fm-steps", hide = true)]
    discrete_fm_steps: Option<String>,
    #[arg(long, hide = true)]
    sym: Option<String>,
    #[arg(long = "sym_func", alias = "sym-func", hide = true)]
    sym_func: bool,
    #[arg(long, hide = true)]
    temp: Option<String>,
    #[arg(long = "sampling_dtype", alias = "sampling-dtype", hide = true)]
    sampling_dtype: Option<String>,
}

impl Launcher {
    /// The names of the flags that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let values = [
            ("num_workers", &self.num_workers),
            ("world_size", &self.world_size),
            ("local_rank", &self.local_rank),
            ("dist_url", &self.dist_url),
            ("nodes", &self.nodes),
            ("ngpus", &self.ngpus),
            ("timeout", &self.timeout),
            ("job_dir", &self.job_dir),
            ("shared_dir", &self.shared_dir),
            ("partition", &self.partition),
            ("constraint", &self.constraint),
            ("comment", &self.comment),
            ("qos", &self.qos),
            ("account", &self.account),
            ("exclude", &self.exclude),
            ("fid_samples", &self.fid_samples),
            ("discrete_fm_steps", &self.discrete_fm_steps),
            ("sym", &self.sym),
            ("temp", &self.temp),
            ("sampling_dtype", &self.sampling_dtype),
        ];
        let switches = [
            ("pin_mem", self.pin_mem),
            ("no_pin_mem", self.no_pin_mem),
            ("dist_on_itp", self.dist_on_itp),
            ("save_fid_samples", self.save_fid_samples),
            ("sym_func", self.sym_func),
        ];
        let values = values.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        values.chain(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name)).collect()
    }
}
