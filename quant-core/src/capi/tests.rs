#![expect(
    clippy::undocumented_unsafe_blocks,
    clippy::cast_ptr_alignment,
    reason = "a caller in C: all memory is as long as it says, some of it misaligned on purpose"
)]

use super::*;
use crate::format::{
    Dense, Head, SectionKind, SelfTestChecksum, SelfTestInput, SelfTestVector, Writer,
};
use crate::infer::{ARITHMETIC, Input, Plan, Sampler};
use crate::net::UNetConfig;
use core::ffi::{CStr, c_void};
use core::ptr::{from_mut, from_ref, null, null_mut};
use half::f16;
use std::vec;
use std::vec::Vec;

const SIDE: usize = 4;

/// A net of a few hundred weights, with ten classes and images of 4 x 4.
fn net() -> UNetConfig {
    UNetConfig {
        in_channels: 1,
        model_channels: 4,
        out_channels: 1,
        num_res_blocks: 1,
        attention_resolutions: [].into(),
        channel_mult: [1.0].into(),
        num_classes: Some(10),
        use_scale_shift_norm: true,
        use_new_attention_order: true,
        image_size: Some(4),
        ..UNetConfig::default()
    }
}

/// The file of that net; with a self-test vector that is right or, by `off`, is not.
fn file(off: Option<f32>) -> Vec<u8> {
    let plain = written(&[]);
    let Some(off) = off else { return plain };
    let model = Model::parse(&plain).unwrap();
    let plan = Plan::new(&model).unwrap();
    let (mut x, mut v) = (vec![0.0; SIDE * SIDE], vec![0.0; SIDE * SIDE]);
    crate::noise::fill_normal(5, 0, 0, &mut x);
    let input = Input { x: &x, concat: &[], t: 0.5, label: Some(1) };
    plan.velocity(&model, &input, &mut vec![0.0; plan.arena_len()], &mut v).unwrap();
    for v in &mut v {
        *v += off;
    }
    let input = SelfTestInput { seed: 5, t: 0.5, label: Some(1) };
    let section = SelfTestVector::emit(input, 1e-3, (4, 4), &v).unwrap();
    written(&[(SectionKind::SELF_TEST, &section)])
}

/// The file with a self-test checksum of some arithmetic, some bits off.
fn checked(arithmetic: u8, off: u32) -> Vec<u8> {
    let plain = file(None);
    let model = Model::parse(&plain).unwrap();
    let plan = Plan::new(&model).unwrap();
    let input = SelfTestInput { seed: 5, t: 0.5, label: Some(1) };
    let mut arena = vec![0.0; plan.arena_len() + SIDE * SIDE];
    let float = plan.velocity_checksum(&model, input, &mut arena).unwrap() ^ off;
    let checksum = SelfTestChecksum { input, arithmetic, float, integer: None }.emit();
    written(&[(SectionKind::SELF_TEST_CHECKSUM, &checksum)])
}

fn written(sections: &[(SectionKind, &[u8])]) -> Vec<u8> {
    let net = net();
    let shapes = net.shapes();
    let head = Head { net: Some(&net), names: None, sections: sections.to_vec() };
    let mut writer = Writer::new(Vec::new(), &head).unwrap();
    for shape in &shapes {
        let len: usize = shape.iter().product();
        let values: Vec<f16> =
            (0..len).map(|i| f16::from_f32(if i % 3 == 0 { 0.2 } else { -0.1 })).collect();
        writer.dense(shape, Dense::F16(&values)).unwrap();
    }
    writer.into_file().unwrap()
}

/// An open model in C's hands, and what it takes.
struct Caller {
    file: Vec<u8>,
    model: FmqModel,
    arena: Vec<f32>,
}

impl Caller {
    fn new(file: Vec<u8>) -> Self {
        let mut caller = Self { file, model: FmqModel::CLOSED, arena: Vec::new() };
        assert_eq!(caller.open(), FmqStatus::Ok);
        caller.arena = vec![f32::NAN; caller.needs(null()).arena_bytes / 4];
        caller
    }

    fn open(&mut self) -> FmqStatus {
        unsafe { fmq_open(&raw mut self.model, self.file.as_ptr(), self.file.len()) }
    }

    fn needs(&self, settings: *const FmqSettings) -> FmqNeeds {
        let mut needs = zeroed_needs();
        let status = unsafe { fmq_plan(&raw const self.model, settings, &raw mut needs) };
        assert_eq!(status, FmqStatus::Ok);
        needs
    }

    fn init(&mut self, settings: &FmqSettings) -> FmqStatus {
        let (arena, bytes) = (self.arena.as_mut_ptr().cast(), 4 * self.arena.len());
        unsafe { fmq_init(&raw mut self.model, from_ref(settings), arena, bytes) }
    }

    fn self_test(&mut self) -> FmqStatus {
        let (arena, bytes) = (self.arena.as_mut_ptr().cast(), 4 * self.arena.len());
        unsafe { fmq_self_test(&raw mut self.model, null(), arena, bytes) }
    }

    fn step(&mut self) -> FmqStatus {
        unsafe { fmq_step(&raw mut self.model) }
    }

    fn finish(&mut self, image: &mut [f32]) -> FmqStatus {
        unsafe { fmq_finish(&raw mut self.model, image.as_mut_ptr(), image.len()) }
    }
}

fn zeroed_needs() -> FmqNeeds {
    FmqNeeds {
        size: types::NEEDS_BYTES,
        arena_align: 0,
        arena_bytes: 0,
        stack_bytes: 0,
        file_bytes: 0,
        image_len: 0,
        channels: 0,
        height: 0,
        width: 0,
        classes: 0,
        golden: 0,
        reserved: 0,
        macs: 0,
    }
}

fn settings() -> FmqSettings {
    FmqSettings { steps: 3, label: 7, seed: 42, image: 2, ..FmqSettings::default() }
}

#[test]
fn draws_what_the_engine_draws() {
    for (method, engine) in [
        (FMQ_EULER, crate::infer::Method::Euler),
        (FMQ_MIDPOINT, crate::infer::Method::Midpoint),
        (FMQ_HEUN2, crate::infer::Method::Heun2),
    ] {
        let given = FmqSettings { method, guidance: 0.5, ..settings() };
        let mut caller = Caller::new(file(None));
        caller.arena = vec![f32::NAN; caller.needs(&raw const given).arena_bytes / 4];
        assert_eq!(caller.init(&given), FmqStatus::Ok);
        assert_eq!(caller.step(), FmqStatus::More);
        // A model may be moved.
        let mut caller = Caller { ..caller };
        assert_eq!(caller.step(), FmqStatus::More);
        let mut image = vec![f32::NAN; SIDE * SIDE + 1];
        assert_eq!(caller.finish(&mut image), FmqStatus::Order);
        assert_eq!(caller.step(), FmqStatus::Ok);
        assert_eq!(caller.step(), FmqStatus::Ok);
        assert_eq!(caller.finish(&mut image), FmqStatus::Ok);
        assert_eq!(caller.finish(&mut image), FmqStatus::Order);
        assert!(image.pop().unwrap().is_nan());

        let model = Model::parse(&caller.file).unwrap();
        let plan = Plan::new(&model).unwrap();
        let given =
            crate::infer::Settings { method: engine, steps: 3, label: Some(7), guidance: 0.5 };
        let mut arena = vec![0.0; given.arena_len(&plan, &model)];
        let mut sampler = Sampler::new(&model, &plan, given, &mut arena).unwrap();
        sampler.noise(42, 2);
        while sampler.step().unwrap() {}
        assert_eq!(sampler.image(), image);
        assert!(image.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn says_what_it_needs() {
    let caller = Caller::new(file(Some(0.0)));
    let needs = caller.needs(null());
    assert_eq!((needs.channels, needs.height, needs.width, needs.image_len), (1, 4, 4, 16));
    assert_eq!((needs.classes, needs.golden, needs.arena_align), (10, 1, 4));
    assert_eq!(needs.file_bytes, caller.file.len());
    let model = Model::parse(&caller.file).unwrap();
    assert_eq!(needs.macs, Plan::new(&model).unwrap().macs());
    let more = caller.needs(&FmqSettings { method: FMQ_HEUN2, ..settings() });
    assert_eq!(more.arena_bytes, needs.arena_bytes + 4 * 16);
    let plan = |settings: &FmqSettings, needs: *mut FmqNeeds| unsafe {
        fmq_plan(&raw const caller.model, from_ref(settings), needs)
    };
    assert_eq!(plan(&settings(), null_mut()), FmqStatus::Null);
    let mut short = FmqNeeds { size: 8, ..zeroed_needs() };
    assert_eq!(plan(&settings(), &raw mut short), FmqStatus::Length);
    assert_eq!(short, FmqNeeds { size: 8, ..zeroed_needs() });
}

#[test]
fn one_float_less_is_refused() {
    let mut caller = Caller::new(file(Some(0.0)));
    caller.arena.pop();
    assert_eq!(caller.init(&settings()), FmqStatus::Length);
    assert_eq!(caller.self_test(), FmqStatus::Length);
    assert_eq!(caller.step(), FmqStatus::Order);
    caller.arena.push(0.0);
    assert_eq!(caller.init(&settings()), FmqStatus::Ok);
    while caller.step() == FmqStatus::More {}
    assert_eq!(caller.finish(&mut [0.0; SIDE * SIDE - 1]), FmqStatus::Length);
    assert_eq!(caller.finish(&mut [0.0; SIDE * SIDE]), FmqStatus::Ok);
}

#[test]
fn tests_its_device() {
    assert_eq!(Caller::new(file(Some(0.0))).self_test(), FmqStatus::Ok);
    assert_eq!(Caller::new(file(Some(0.5))).self_test(), FmqStatus::SelfTest);
    assert_eq!(Caller::new(file(None)).self_test(), FmqStatus::NoGolden);
    assert_eq!(Caller::new(checked(ARITHMETIC, 0)).self_test(), FmqStatus::Ok);
    assert_eq!(Caller::new(checked(ARITHMETIC, 1)).self_test(), FmqStatus::SelfTest);
    assert_eq!(Caller::new(checked(ARITHMETIC + 1, 0)).self_test(), FmqStatus::NotComparable);
    let mut caller = Caller::new(file(Some(0.0)));
    assert_eq!(caller.init(&settings()), FmqStatus::Ok);
    // It would overwrite the image under way.
    assert_eq!(caller.self_test(), FmqStatus::Order);
    assert_eq!(caller.step(), FmqStatus::More);
}

#[test]
fn pointers_are_checked() {
    let mut caller = Caller::new(file(None));
    let (file, len) = (caller.file.as_ptr(), caller.file.len());
    let model = &raw mut caller.model;
    let askew = model.cast::<u8>().wrapping_add(4).cast::<FmqModel>();
    let (arena, bytes) = (caller.arena.as_mut_ptr(), 4 * caller.arena.len());
    let off = arena.cast::<u8>().wrapping_add(2).cast::<c_void>();
    let arena = arena.cast::<c_void>();
    unsafe {
        assert_eq!(fmq_defaults(null_mut()), FmqStatus::Null);
        assert_eq!(fmq_open(null_mut(), file, len), FmqStatus::Null);
        assert_eq!(fmq_open(askew, file, len), FmqStatus::Alignment);
        assert_eq!(fmq_step(askew), FmqStatus::Alignment);
        assert_eq!(fmq_step(null_mut()), FmqStatus::Null);
        assert_eq!(fmq_init(model, null(), null_mut(), bytes), FmqStatus::Null);
        assert_eq!(fmq_init(model, null(), off, bytes - 4), FmqStatus::Alignment);
        assert_eq!(fmq_init(model, null(), arena, usize::MAX), FmqStatus::Length);
        assert_eq!(fmq_init(model, null(), model.cast(), 64), FmqStatus::Overlap);
        assert_eq!(fmq_finish(null_mut(), null_mut(), 0), FmqStatus::Null);
        assert_eq!(fmq_init(model, null(), arena, bytes), FmqStatus::Ok);
        while fmq_step(model) == FmqStatus::More {}
        assert_eq!(fmq_finish(model, null_mut(), 16), FmqStatus::Null);
        assert_eq!(fmq_finish(model, arena.cast(), 16), FmqStatus::Overlap);
        assert_eq!(fmq_finish(model, off.cast(), 16), FmqStatus::Alignment);
        assert_eq!(fmq_finish(model, arena.cast(), usize::MAX), FmqStatus::Length);
        // What fails to open is closed.
        assert_eq!(fmq_open(model, null(), len), FmqStatus::Null);
        assert_eq!(fmq_open(model, model.cast(), 8), FmqStatus::Overlap);
        assert_eq!(fmq_open(model, file, usize::MAX), FmqStatus::Length);
    }
}

#[test]
fn the_order_of_calls_is_checked() {
    let mut caller = Caller::new(file(None));
    let mut image = [0.0; SIDE * SIDE];
    assert_eq!(caller.step(), FmqStatus::Order);
    assert_eq!(caller.finish(&mut image), FmqStatus::Order);
    assert_eq!(caller.init(&settings()), FmqStatus::Ok);
    assert_eq!(caller.step(), FmqStatus::More);
    assert_eq!(caller.open(), FmqStatus::Ok);
    assert_eq!(caller.step(), FmqStatus::Order);
    caller.model = FmqModel::CLOSED;
    assert_eq!(caller.step(), FmqStatus::Order);
    assert_eq!(caller.init(&settings()), FmqStatus::Order);
    assert_eq!(caller.self_test(), FmqStatus::Order);
    let mut needs = zeroed_needs();
    let status = unsafe { fmq_plan(&raw const caller.model, null(), &raw mut needs) };
    assert_eq!(status, FmqStatus::Order);
}

#[test]
fn settings_are_checked() {
    let mut caller = Caller::new(file(None));
    for wrong in [
        FmqSettings { size: 36, ..settings() },
        FmqSettings { size: 0, ..settings() },
        FmqSettings { method: 3, ..settings() },
        FmqSettings { steps: 0, ..settings() },
        FmqSettings { steps: u32::MAX, ..settings() },
        FmqSettings { guidance: f32::NAN, ..settings() },
        FmqSettings { precision: 2, ..settings() },
    ] {
        assert_eq!(caller.init(&wrong), FmqStatus::Settings, "{wrong:?}");
        assert_eq!(caller.step(), FmqStatus::Order);
    }
    let integer = FmqSettings { precision: FMQ_INTEGER, ..settings() };
    assert_eq!(caller.init(&integer), FmqStatus::NoScales);
    assert_eq!(caller.init(&FmqSettings { label: 11, ..settings() }), FmqStatus::Ok);
    assert_eq!(caller.step(), FmqStatus::Settings);
    assert_eq!(caller.step(), FmqStatus::Order);
    let mut given = settings();
    assert_eq!(unsafe { fmq_defaults(from_mut(&mut given)) }, FmqStatus::Ok);
    assert_eq!(given, FmqSettings::default());
}

#[test]
fn an_arena_that_others_wrote_to_does_no_harm() {
    let mut caller = Caller::new(file(None));
    assert_eq!(caller.init(&settings()), FmqStatus::Ok);
    caller.arena.fill(f32::NAN);
    assert_eq!(caller.step(), FmqStatus::NonFinite);
    assert_eq!(caller.step(), FmqStatus::Order);
}

#[test]
fn files_are_checked() {
    let mut caller = Caller::new(file(None));
    let good = caller.file.clone();
    let mut status = |at: usize, byte: u8| {
        caller.file.copy_from_slice(&good);
        caller.file[at] = byte;
        let status = caller.open();
        assert_eq!(caller.step(), FmqStatus::Order);
        status
    };
    assert_eq!(status(0, b'F'), FmqStatus::File);
    assert_eq!(status(4, 2), FmqStatus::Version);
    assert_eq!(status(good.len() - 1, 1), FmqStatus::Checksum);
    assert_eq!(status(23, 1), FmqStatus::File);
    // A flash goes on after the file.
    caller.file = good;
    caller.file.resize(caller.file.len() + 100, 0xff);
    assert_eq!(caller.open(), FmqStatus::Ok);
    assert_eq!(caller.needs(null()).file_bytes, caller.file.len() - 100);
    caller.file.truncate(50);
    assert_eq!(caller.open(), FmqStatus::File);
    let head = Head::default();
    caller.file = Writer::new(Vec::new(), &head).unwrap().into_file().unwrap();
    assert_eq!(caller.open(), FmqStatus::Ok);
    assert_eq!(caller.init(&settings()), FmqStatus::Net);
}

#[test]
fn every_status_has_a_text() {
    let text = |status: i32| unsafe { CStr::from_ptr(fmq_error_text(status)) }.to_str().unwrap();
    let texts: Vec<_> =
        (FmqStatus::NotComparable as i32..=FmqStatus::More as i32).map(text).collect();
    assert_eq!(texts.len(), 17);
    for (i, text) in texts.iter().enumerate() {
        assert!(*text != "unknown status" && !texts[..i].contains(text), "{text}");
    }
    for unknown in [2, -16, i32::MIN, i32::MAX] {
        assert_eq!(text(unknown), "unknown status");
    }
}
