//! The meaning of the keys of a checkpoint's dictionaries, told by the words in them.

/// Words of keys under which training programs keep a net's state dict, such as `ema_model`,
/// `model_state_dict`, `_orig_mod` and `net_g`.
const NET_WORDS: [&str; 35] = [
    "averaged",
    "average",
    "avg",
    "best",
    "checkpoint",
    "ddp",
    "denoiser",
    "dict",
    "diffusion",
    "dit",
    "ema",
    "flow",
    "g",
    "generator",
    "last",
    "mod",
    "model",
    "module",
    "net",
    "network",
    "nn",
    "online",
    "orig",
    "parameters",
    "params",
    "raw",
    "score",
    "shadow",
    "state",
    "student",
    "swa",
    "teacher",
    "unet",
    "weights",
    "wrapped",
];
/// Words that say that the weights are averaged over the steps of training.
const AVERAGE_WORDS: [&str; 7] = ["averaged", "average", "avg", "ema", "polyak", "shadow", "swa"];
/// Words that say that they are not, although a key around them may.
const RAW_WORDS: [&str; 3] = ["online", "raw", "student"];
/// Words of keys under which the state of an optimizer lies, or of what steers it.
const OPTIMIZER_WORDS: [&str; 12] = [
    "adam",
    "adamw",
    "opt",
    "optim",
    "optimizer",
    "optimizers",
    "optims",
    "scaler",
    "sched",
    "scheduler",
    "schedulers",
    "sgd",
];
/// Names of an optimizer's tensors, of the size of its parameter.
const MOMENTS: [&str; 7] = [
    "acc_delta",
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "max_exp_avg_sq",
    "momentum_buffer",
    "square_avg",
];

/// The words of a key: `modelEMA_v2` is `model`, `ema`, `v2`.
fn words(key: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::new();
    let mut lower = false;
    for letter in key.chars() {
        if letter.is_uppercase() && lower {
            spaced.push(' ');
        }
        lower = letter.is_lowercase();
        spaced.push(if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { ' ' });
    }
    spaced.split_whitespace().map(str::to_string).collect::<Vec<_>>().into_iter()
}

/// Returns true if a net's state dict may lie under the key: all its words are of that kind.
pub(super) fn is_net(key: &str) -> bool {
    let mut words = words(key).peekable();
    words.peek().is_some() && words.all(|word| NET_WORDS.contains(&word.as_str()))
}

/// Returns true if the weights under the key are averaged over the steps of training; the last word
/// that says so, or the contrary, counts.
pub(super) fn is_average(key: &str) -> bool {
    let says = |average, word: String| match word.as_str() {
        word if AVERAGE_WORDS.contains(&word) => true,
        word if RAW_WORDS.contains(&word) => false,
        _ => average,
    };
    words(key).fold(false, says)
}

/// Returns true if the key holds the state of an optimizer, of a schedule or of a gradient scaler.
pub(super) fn is_optimizer(key: &str) -> bool {
    words(key).any(|word| OPTIMIZER_WORDS.contains(&word.as_str()))
}

/// Returns true if a tensor of this dotted name is one of an optimizer's.
pub(super) fn is_moment(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| MOMENTS.contains(&last))
}

/// The leading part of a dotted name under which a net's names may lie, without the dot after it:
/// `module._orig_mod` of `module._orig_mod.conv.weight`.
pub(super) fn prefix(name: &str) -> &str {
    let mut end = 0;
    for part in name.split_inclusive('.') {
        match part.strip_suffix('.') {
            Some(key) if is_net(key) => end += part.len(),
            _ => break,
        }
    }
    name[..end].strip_suffix('.').unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_known_trainers_are_told_apart() {
        for key in [
            "model",
            "module",
            "_orig_mod",
            "net_model",
            "ema_model",
            "state_dict",
            "G_ema",
            "model_state_dict",
            "model_ema",
            "ema_state_dict",
            "params_ema",
            "ModelEMA",
            "unet",
        ] {
            assert!(is_net(key), "{key}");
        }
        for key in ["input_blocks", "out", "time_embed", "conv1", "encoder", "", "optim", "0"] {
            assert!(!is_net(key), "{key}");
        }
        assert!(is_average("ema_model") && is_average("G_ema") && is_average("shadow_params"));
        assert!(is_average("ema.model") && !is_average("ema.online_model"));
        assert!(!is_average("model") && !is_average("schema") && !is_average("cinema"));
        assert!(is_optimizer("optim") && is_optimizer("optimizer_state_dict"));
        assert!(is_optimizer("lr_schedulers") && !is_optimizer("options"));
        assert!(is_moment("state.0.exp_avg") && !is_moment("conv.weight"));
    }

    #[test]
    fn a_prefix_ends_where_the_net_begins() {
        assert_eq!(prefix("module._orig_mod.conv.weight"), "module._orig_mod");
        assert_eq!(prefix("input_blocks.0.weight"), "");
        assert_eq!(prefix("model"), "");
    }
}
