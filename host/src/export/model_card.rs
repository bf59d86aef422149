//! The card of a model: the `README.md` that model hubs show, from facts to text.
//!
//! A fact that is not known has no line in the card. Source of the head's fields: the Hub's "Model Cards" and "model-index".

use fm_candle::checkpoint::{Catalogue, MeasuredFid};
use fm_candle::model::UNetConfig;

use super::packed_size::PackedSize;
use super::training_run::TrainingRun;
use crate::args::command_line::shell_word;

/// The picture of samples.
pub(crate) const SAMPLES: &str = "samples.png";
/// The images in it.
pub(crate) const SHOWN: usize = 16;
/// The steps of its solver, the midpoint method.
pub(crate) const STEPS: usize = 10;

/// The identifiers that the Hub has for the data sets that are what their names say; `imagenet` and
/// `celeba` may be any folders of images.
const DATASETS: [(&str, &str); 3] = [
    ("mnist", "ylecun/mnist"),
    ("fashionmnist", "zalando-datasets/fashion_mnist"),
    ("cifar10", "uoft-cs/cifar10"),
];

/// The facts of a model.
pub(crate) struct ModelCard<'a> {
    /// Its name, which is that of its folder.
    pub(crate) name: &'a str,
    pub(crate) net: &'a UNetConfig,
    /// Number of weights.
    pub(crate) parameters: u64,
    /// A sentence on how the weights were made from the checkpoint, if they were changed.
    pub(crate) origin: Option<String>,
    pub(crate) facts: &'a Catalogue,
    /// The run that trained it.
    pub(crate) run: Option<&'a TrainingRun>,
    /// Name and bytes of the weights' file.
    pub(crate) weights: (&'a str, u64),
    /// Name of the configuration's file.
    pub(crate) config: &'a str,
    /// The packed files, with their distances where they are known.
    pub(crate) packed: &'a [(PackedSize, Option<MeasuredFid>)],
    /// Seed of the samples.
    pub(crate) seed: u64,
}

impl ModelCard<'_> {
    /// The card: its head in YAML, then its text in Markdown.
    pub(crate) fn text(&self) -> String {
        [self.head(), self.summary(), self.training(), self.metrics(), self.files(), self.usage()]
            .concat()
    }

    fn head(&self) -> String {
        let mut lines = vec!["---".to_string()];
        lines.extend(self.facts.license.as_ref().map(|id| format!("license: {id}")));
        let dataset = self.facts.dataset.as_deref();
        let on_hub = dataset.and_then(|name| DATASETS.iter().find(|(own, _)| *own == name));
        if let Some((_, id)) = on_hub {
            lines.extend(["datasets:".into(), format!("- {id}")]);
        }
        lines.extend(
            ["pipeline_tag: unconditional-image-generation", "library_name: fmq"].map(Into::into),
        );
        lines.extend(["tags:", "- flow-matching", "- unet"].map(Into::into));
        if !self.packed.is_empty() {
            lines.push("- quantized".into());
        }
        let measured = self.measured();
        if let [(_, first), ..] = &measured[..] {
            let set = dataset.unwrap_or(&first.reference);
            lines.extend([
                "model-index:".into(),
                format!("- name: {}", quoted(self.name)),
                "  results:".into(),
                "  - task:".into(),
                "      type: unconditional-image-generation".into(),
                "    dataset:".into(),
                format!("      name: {}", quoted(set)),
                format!("      type: {}", quoted(on_hub.map_or(set, |(_, id)| id))),
                "    metrics:".into(),
            ]);
            for (file, fid) in measured {
                lines.extend([
                    "    - type: fid".into(),
                    format!("      name: {}", quoted(&format!("{}, {file}", fid.name))),
                    format!("      value: {}", fid.value),
                ]);
            }
        }
        lines.join("\n") + "\n---\n"
    }

    fn summary(&self) -> String {
        let Self { name, net, parameters, .. } = self;
        let side =
            net.image_size.map_or_else(String::new, |side| format!("{side} x {side} pixels, "));
        let channels = match net.out_channels {
            1 => "1 channel".to_string(),
            n => format!("{n} channels"),
        };
        let classes = match net.num_classes {
            Some(classes) => format!(", and takes {classes} classes as labels"),
            None => String::new(),
        };
        let origin = self.origin.as_ref().map_or_else(String::new, |it| format!(" {it}"));
        let command = self.sample(
            "",
            &format!("-n {SHOWN}"),
            &format!(" --ode-method midpoint --steps {STEPS} --seed {} -o {SAMPLES}", self.seed),
        );
        format!(
            "\n# {name}\n\n\
             A flow-matching U-Net with {parameters} weights. It draws images of \
             {side}{channels}{classes}.{origin}\n\n\
             ![{SHOWN} samples]({SAMPLES})\n\n\
             *Drawn by `{command}`.*\n"
        )
    }

    fn training(&self) -> String {
        let Catalogue { dataset, epochs, loss, .. } = self.facts;
        let mut lines = Vec::new();
        lines.extend(dataset.as_ref().map(|name| match &**name {
            "imagenet" | "celeba" => {
                format!("- Data set: a folder of images in the layout that fmq calls `{name}`")
            }
            name => format!("- Data set: `{name}`"),
        }));
        lines.extend(epochs.map(|epochs| format!("- Epochs: {epochs}")));
        lines.extend(loss.map(|loss| {
            format!("- Loss of the last epoch (mean squared error of the velocity): {loss:.5}")
        }));
        if let Some(command) = self.run.and_then(TrainingRun::command) {
            let what = "The command, where `DIR` is the folder of the data set:";
            lines.push(format!("\n{what}\n\n```sh\n{command}\n```"));
        }
        let epochs = self.run.map_or(&[][..], TrainingRun::epochs).iter();
        let mut epochs = epochs.filter_map(|epoch| Some((epoch.number, epoch.loss?, epoch.fid)));
        let row = |(number, loss, fid): (u64, f64, Option<f64>)| {
            let fid = fid.map_or_else(String::new, |fid| format!("{fid:.3}"));
            format!("| {number} | {loss:.5} | {fid} |")
        };
        if let Some(first) = epochs.next() {
            lines.push("\n| epoch | loss | FID |\n|---|---|---|".into());
            lines.push(row(first));
            lines.extend(epochs.map(row));
        }
        if lines.is_empty() {
            return String::new();
        }
        format!("\n## Training\n\n{}\n", lines.join("\n"))
    }

    fn metrics(&self) -> String {
        let measured = self.measured();
        if measured.is_empty() {
            return String::new();
        }
        let lines = measured.iter().map(|(file, fid)| format!("- `{file}`: {fid}"));
        let lines = lines.collect::<Vec<_>>().join("\n");
        format!("\n## Metrics\n\n{lines}\n\nLower is better; distances on other features differ.\n")
    }

    fn files(&self) -> String {
        let (weights, bytes) = self.weights;
        let bits = 8.0 * bytes as f64 / self.parameters.max(1) as f64;
        let packed = self.packed.iter().map(|(PackedSize { file, bytes, bits_per_weight }, _)| {
            let what = "the net packed, for a PC and for microcontrollers";
            format!("| `{file}` | {bytes} | {bits_per_weight:.3} | {what} |\n")
        });
        let packed = packed.collect::<Vec<_>>().concat();
        format!(
            "\n## Files\n\n\
             | file | bytes | bits per weight | what it is |\n|---|---|---|---|\n\
             | `{weights}` | {bytes} | {bits:.3} | the weights; the net's configuration in the \
             metadata |\n\
             | `{}` | | | the net's configuration, under upstream's field names \
             (`facebookresearch/flow_matching`) |\n\
             {packed}\
             | `{SAMPLES}` | | | the picture above |\n\n\
             Bits per weight are those of the whole file.\n",
            self.config
        )
    }

    fn usage(&self) -> String {
        let packed = self.packed.iter().map(|(packed, _)| format!("/{}", packed.file));
        let samples: String = core::iter::once(String::new())
            .chain(packed)
            .map(|file| self.sample(&file, "-n 64", " -o grid.png") + "\n")
            .collect();
        format!("\n## Use\n\n```sh\n{samples}fmq inspect {}\n```\n", shell_word(self.name))
    }

    /// The command that samples from a file of the folder, or from the folder.
    fn sample(&self, file: &str, n: &str, more: &str) -> String {
        let label = if self.net.num_classes.is_some() { " --label all" } else { "" };
        format!("fmq sample {} {n}{label}{more}", shell_word(&format!("{}{file}", self.name)))
    }

    /// The distances that are known, by file.
    fn measured(&self) -> Vec<(&str, &MeasuredFid)> {
        let full = self.facts.fid.iter().map(|fid| (self.weights.0, fid));
        let packed =
            self.packed.iter().filter_map(|(size, fid)| Some((&*size.file, fid.as_ref()?)));
        full.chain(packed).collect()
    }
}

/// Text as YAML reads it: a string of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(value: f64) -> MeasuredFid {
        MeasuredFid {
            name: "FID (LeNet features)".into(),
            value,
            error: None,
            features: "lenet, built in".into(),
            samples: Some(1000),
            reference: "MNIST train".into(),
            sampler: "midpoint, 10 steps".into(),
        }
    }

    fn card<'a>(
        net: &'a UNetConfig,
        facts: &'a Catalogue,
        packed: &'a [(PackedSize, Option<MeasuredFid>)],
    ) -> ModelCard<'a> {
        ModelCard {
            name: "my digits",
            net,
            parameters: 1000,
            origin: None,
            facts,
            run: None,
            weights: ("model.safetensors", 4096),
            config: "config.json",
            packed,
            seed: 3,
        }
    }

    #[test]
    fn known_facts_stand_in_head_and_text() {
        let net = UNetConfig::preset("mnist-small").unwrap();
        let facts = Catalogue {
            dataset: Some("mnist".into()),
            epochs: Some(12),
            loss: Some(0.176_05),
            fid: Some(fid(6.02)),
            license: Some("cc-by-4.0".into()),
        };
        let size = PackedSize { file: "q.fmq".into(), bytes: 250, bits_per_weight: 2.0 };
        let text = card(&net, &facts, &[(size, Some(fid(7.5)))]).text();
        let (head, body) = text.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
        assert_eq!(
            head,
            "license: cc-by-4.0\n\
             datasets:\n\
             - ylecun/mnist\n\
             pipeline_tag: unconditional-image-generation\n\
             library_name: fmq\n\
             tags:\n\
             - flow-matching\n\
             - unet\n\
             - quantized\n\
             model-index:\n\
             - name: \"my digits\"\n  \
               results:\n  \
               - task:\n      \
                   type: unconditional-image-generation\n    \
                 dataset:\n      \
                   name: \"mnist\"\n      \
                   type: \"ylecun/mnist\"\n    \
                 metrics:\n    \
                 - type: fid\n      \
                   name: \"FID (LeNet features), model.safetensors\"\n      \
                   value: 6.02\n    \
                 - type: fid\n      \
                   name: \"FID (LeNet features), q.fmq\"\n      \
                   value: 7.5"
        );
        for part in [
            "with 1000 weights. It draws images of 28 x 28 pixels, 1 channel, and takes 10 classes",
            "![16 samples](samples.png)",
            "`fmq sample 'my digits' -n 16 --label all --ode-method midpoint --steps 10 --seed 3 -o \
             samples.png`",
            "- Data set: `mnist`\n- Epochs: 12\n- Loss of the last epoch (mean squared error of the \
             velocity): 0.17605\n",
            "- `q.fmq`: FID (LeNet features) 7.500 (1000 samples by midpoint, 10 steps; against MNIST \
             train; features: lenet, built in)\n",
            "| `model.safetensors` | 4096 | 32.768 |",
            "| `q.fmq` | 250 | 2.000 |",
            "fmq sample 'my digits' -n 64 --label all -o grid.png\n\
             fmq sample 'my digits/q.fmq' -n 64 --label all -o grid.png\n\
             fmq inspect 'my digits'\n",
        ] {
            assert!(body.contains(part), "{part}\n{body}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let net = UNetConfig { num_classes: None, image_size: None, ..UNetConfig::default() };
        let text = card(&net, &Catalogue::default(), &[]).text();
        for absent in [
            "license",
            "datasets",
            "model-index",
            "quantized",
            "Training",
            "Metrics",
            "label",
            "FID",
        ] {
            assert!(!text.contains(absent), "{absent}\n{text}");
        }
        assert!(text.contains("It draws images of 3 channels.\n"), "{text}");
    }

    #[test]
    fn folders_of_images_are_not_said_to_be_a_data_set_of_the_hub() {
        let net = UNetConfig::default();
        let facts = Catalogue { dataset: Some("celeba".into()), ..Catalogue::default() };
        let text = card(&net, &facts, &[]).text();
        assert!(!text.contains("datasets:"), "{text}");
        assert!(text.contains("in the layout that fmq calls `celeba`"), "{text}");
    }
}
