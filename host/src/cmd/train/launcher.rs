//! Upstream's flags that say nothing to us: accepted, so that old command lines go on working.

use serde_json::{Map, Value, json};

/// Flags of upstream's launcher, loader workers and discrete variant.
#[derive(clap::Args, Clone, Default)]
#[command(rename_all = "snake_case")]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches, one to one")]
pub(crate) struct Launcher {
    #[arg(long, hide = true)]
    num_workers: Option<String>,
    #[arg(long, hide = true)]
    pin_mem: bool,
    #[arg(long, hide = true)]
    no_pin_mem: bool,
    #[arg(long, hide = true)]
    world_size: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    local_rank: Option<String>,
    #[arg(long, hide = true)]
    dist_on_itp: bool,
    #[arg(long, hide = true)]
    dist_url: Option<String>,
    #[arg(long, hide = true)]
    nodes: Option<String>,
    #[arg(long, hide = true)]
    ngpus: Option<String>,
    #[arg(long, hide = true)]
    timeout: Option<String>,
    #[arg(long, hide = true)]
    job_dir: Option<String>,
    #[arg(long, hide = true)]
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
    #[arg(long, hide = true)]
    discrete_fm_steps: Option<String>,
    #[arg(long, hide = true)]
    sym: Option<String>,
    #[arg(long, hide = true)]
    sym_func: bool,
    #[arg(long, hide = true)]
    temp: Option<String>,
    #[arg(long, hide = true)]
    sampling_dtype: Option<String>,
}

impl Launcher {
    /// The flags that take a value: name, what was given, and upstream's default where its training
    /// itself has the flag.
    fn values(&self) -> [(&'static str, &Option<String>, Value); 19] {
        [
            ("num_workers", &self.num_workers, json!(10)),
            ("world_size", &self.world_size, json!(1)),
            ("local_rank", &self.local_rank, json!(-1)),
            ("dist_url", &self.dist_url, json!("env://")),
            ("discrete_fm_steps", &self.discrete_fm_steps, json!(1024)),
            ("sym", &self.sym, json!(0.0)),
            ("temp", &self.temp, json!(1.0)),
            ("sampling_dtype", &self.sampling_dtype, json!("float32")),
            ("nodes", &self.nodes, Value::Null),
            ("ngpus", &self.ngpus, Value::Null),
            ("timeout", &self.timeout, Value::Null),
            ("job_dir", &self.job_dir, Value::Null),
            ("shared_dir", &self.shared_dir, Value::Null),
            ("partition", &self.partition, Value::Null),
            ("constraint", &self.constraint, Value::Null),
            ("comment", &self.comment, Value::Null),
            ("qos", &self.qos, Value::Null),
            ("account", &self.account, Value::Null),
            ("exclude", &self.exclude, Value::Null),
        ]
    }

    /// The names of the flags that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let switches = [
            ("pin_mem", self.pin_mem),
            ("no_pin_mem", self.no_pin_mem),
            ("dist_on_itp", self.dist_on_itp),
            ("sym_func", self.sym_func),
        ];
        let values = self.values().into_iter().filter(|(_, value, _)| value.is_some());
        let switches = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name);
        values.map(|(name, ..)| name).chain(switches).collect()
    }

    /// The flags as upstream's training keeps them: what was given, else its defaults.
    pub(crate) fn attributes(&self) -> Map<String, Value> {
        let values = self.values().into_iter().map(|(name, given, default)| {
            let number = |text: &String| serde_json::from_str(text).ok().filter(Value::is_number);
            let given = given.as_ref().map(|text| number(text).unwrap_or_else(|| json!(text)));
            (name.to_string(), given.unwrap_or(default))
        });
        let mut all: Map<_, _> = values.filter(|(_, value)| !value.is_null()).collect();
        let switches = [
            ("pin_mem", !self.no_pin_mem),
            ("dist_on_itp", self.dist_on_itp),
            ("sym_func", self.sym_func),
            ("distributed", false),
        ];
        all.extend(switches.map(|(name, on)| (name.to_string(), json!(on))));
        all
    }
}
