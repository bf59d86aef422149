//! Small nets that together use everything a net can have.

use fm_candle::model::UNetConfig;

/// Nets that differ from each other in every field, with the size of their images.
///
/// # Panics
/// Where a preset is gone.
pub fn nets() -> Vec<(&'static str, UNetConfig, (usize, usize))> {
    let base = UNetConfig {
        model_channels: 32,
        num_res_blocks: 1,
        channel_mult: [1.0, 2.0].into(),
        attention_resolutions: [2].into(),
        conv_resample: false,
        use_scale_shift_norm: true,
        use_new_attention_order: true,
        num_classes: Some(10),
        ..UNetConfig::default()
    };
    let with = |change: fn(&mut UNetConfig)| {
        let mut config = base.clone();
        change(&mut config);
        config
    };
    vec![
        ("average and copy", base.clone(), (8, 8)),
        ("not square", base.clone(), (6, 14)),
        ("convolutions resample", with(|c| c.conv_resample = true), (8, 12)),
        ("blocks resample", with(|c| c.resblock_updown = true), (8, 8)),
        ("no scale-shift", with(|c| c.use_scale_shift_norm = false), (8, 8)),
        ("legacy attention", with(|c| c.use_new_attention_order = false), (4, 6)),
        (
            "heads",
            with(|c| {
                c.use_new_attention_order = false;
                (c.num_heads, c.num_heads_upsample) = (2, Some(4));
                c.attention_resolutions = [1, 2].into();
            }),
            (4, 4),
        ),
        ("head channels", with(|c| c.num_head_channels = Some(16)), (4, 4)),
        ("no classes", with(|c| c.num_classes = None), (8, 8)),
        ("no time", with(|c| c.ignore_time = true), (8, 8)),
        (
            "neither time nor classes",
            with(|c| (c.ignore_time, c.num_classes) = (true, None)),
            (8, 8),
        ),
        ("concatenated", with(|c| c.in_channels = 5), (8, 8)),
        ("one level, odd", with(|c| c.channel_mult = [1.0].into()), (5, 7)),
        (
            "three levels, two blocks",
            with(|c| {
                c.channel_mult = [2.0, 1.0, 1.5].into();
                (c.model_channels, c.num_res_blocks) = (64, 2);
            }),
            (16, 8),
        ),
        ("no projection", with(|c| (c.input_projection, c.in_channels) = (false, 32)), (6, 6)),
        (
            "no residual blocks",
            with(|c| {
                c.channel_mult = [2.0, 1.0, 3.0].into();
                (c.num_res_blocks, c.attention_resolutions) = (0, [1, 4].into());
            }),
            (8, 12),
        ),
        (
            "a block of the decoder as wide as what it reads",
            with(|c| {
                c.channel_mult = [2.0, 4.0, 2.0].into();
                (c.num_res_blocks, c.attention_resolutions) = (0, [].into());
            }),
            (8, 8),
        ),
        ("patches", with(|c| (c.patch, c.in_channels) = (2, 3)), (16, 8)),
        ("mnist-micro", UNetConfig::preset("mnist-micro").expect("a preset"), (28, 28)),
        ("mnist-small", UNetConfig::preset("mnist-small").expect("a preset"), (28, 28)),
    ]
}
