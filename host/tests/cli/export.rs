//! `fmq export`: the same bytes in every form, and projects that draw what the host draws.

use core::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use quant_core::format::Model;
use quant_core::infer::{Plan, Precision, Sampler, Settings};

use crate::{folder, names, ok};

/// A folder with `q.fmq`, a small net that can test its device.
fn packed() -> tempfile::TempDir {
    let dir = folder();
    let quantize = "quantize net.safetensors --scheme lloyd-max --bits 4 --golden -o q.fmq";
    ok(dir.path(), &quantize.split(' ').collect::<Vec<_>>());
    dir
}

#[test]
fn every_form_holds_the_file() {
    let dir = packed();
    let dir = dir.path();
    let file = fs::read(dir.join("q.fmq")).unwrap();
    let said = ok(dir, &["export", "q.fmq", "-o", "a.bin"]);
    assert_eq!(fs::read(dir.join("a.bin")).unwrap(), file);

    let model = Model::parse(&file).unwrap();
    let plan = Plan::new(&model).unwrap();
    let arena = 4 * Settings::default().arena_len(&plan, &model);
    for fact in [
        format!("flash   {} bytes", file.len()),
        format!("arena   {arena} bytes"),
        format!("macs    {} ", plan.macs()),
        "image   1 x 8 x 8 floats".to_string(),
        "classes 10".to_string(),
        "golden  yes".to_string(),
    ] {
        assert!(said.contains(&fact), "{fact}\n{said}");
    }

    ok(dir, &["export", "q.fmq", "-o", "7 a.h"]);
    let text = fs::read_to_string(dir.join("7 a.h")).unwrap();
    assert!(said.lines().all(|line| text.contains(line)));
    assert!(text.contains(&format!("#define _7_A_MODEL_ARENA_BYTES {arena}\n")), "{text}");
    let (_, bytes) = text.split_once("_7_a_model[").unwrap().1.split_once(" = {").unwrap();
    let bytes = bytes.split_once('}').unwrap().0.split(',').map(str::trim);
    let bytes = bytes.filter(|byte| !byte.is_empty()).map(|byte| byte.parse::<u8>().unwrap());
    assert!(bytes.eq(file.iter().copied()));

    ok(dir, &["export", "q.fmq", "-o", "a.rs"]);
    let text = fs::read_to_string(dir.join("a.rs")).unwrap();
    assert!(said.lines().all(|line| text.contains(line)));
    assert!(text.contains(&format!("ARENA_LEN: usize = {};", arena / 4)), "{text}");
    let bytes = text.split("\\x").skip(1).map(|byte| u8::from_str_radix(&byte[..2], 16).unwrap());
    assert!(bytes.eq(file.iter().copied()));
}

#[test]
fn a_project_is_a_folder_like_others() {
    let dir = packed();
    let dir = dir.path();
    for lang in ["rust", "c"] {
        ok(dir, &["export", "q.fmq", "--firmware", lang, "--lang", lang]);
        let (file, copy) = (dir.join("q.fmq"), dir.join(lang).join("model.fmq"));
        assert_eq!(fs::read(copy).unwrap(), fs::read(file).unwrap());
        fs::create_dir(dir.join("other")).unwrap();
        let permissions = |name| fs::metadata(dir.join(name)).unwrap().permissions();
        assert_eq!(permissions(lang), permissions("other"));
        fs::remove_dir(dir.join("other")).unwrap();
    }
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert!(text("rust/src/plan.rs").contains("pub type Arithmetic = f32;"));
    assert!(text("c/fmq/Cargo.toml").contains(r#"features = ["capi-float"] }"#));
    assert!(text("c/plan.h").contains("#define PLAN_METHOD 0\n#define PLAN_STEPS 16\n"));
    let solver = ["--ode-method", "heun2", "--steps", "9"];
    let said = ok(dir, &[&["export", "q.fmq", "--firmware", "heun"], &solver[..]].concat());
    assert!(said.contains("bytes for heun2 without guidance"), "{said}");
    let plan = text("heun/src/plan.rs");
    assert!(plan.contains("Method::Heun2;") && plan.contains("STEPS: u32 = 9;"), "{plan}");
    // An empty folder may be there already.
    fs::create_dir(dir.join("empty")).unwrap();
    ok(dir, &["export", "q.fmq", "--firmware", "empty", "--quant-core", "https://example.org/fmq"]);
    let manifest = fs::read_to_string(dir.join("empty/Cargo.toml")).unwrap();
    assert!(manifest.contains(r#"quant-core = { git = "https://example.org/fmq" }"#), "{manifest}");
    // So may the one that one is in, and it stays itself; so may a link to one.
    fs::create_dir(dir.join("here")).unwrap();
    let inode = |name| fs::metadata(dir.join(name)).unwrap().ino();
    let before = inode("here");
    ok(&dir.join("here"), &["export", "../q.fmq", "--firmware", "."]);
    assert_eq!(inode("here"), before);
    fs::create_dir(dir.join("far")).unwrap();
    symlink("far", dir.join("link")).unwrap();
    ok(dir, &["export", "q.fmq", "--firmware", "link/"]);
    ok(dir, &["export", "q.fmq", "--firmware", "new/"]);
    let file_names = |name| -> Vec<_> {
        names(&dir.join(name)).iter().map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    for other in ["here", "far", "new", "empty"] {
        assert_eq!(file_names(other), file_names("rust"), "{other}");
    }
}

/// What the compilers make of the sources: programs that copy the bytes to stdout.
#[test]
fn sources_compile() {
    let dir = packed();
    let dir = dir.path();
    let file = fs::read(dir.join("q.fmq")).unwrap();
    ok(dir, &["export", "q.fmq", "-o", "model.rs"]);
    ok(dir, &["export", "q.fmq", "-o", "q.h"]);
    let rust = "#[allow(dead_code)] mod model; use std::io::Write;\n\
                fn main() { assert_eq!(model::MODEL.as_ptr().addr() % 64, 0);\n\
                std::io::stdout().write_all(model::MODEL).unwrap(); }\n";
    let c = "#include <stdio.h>\n#include <stdint.h>\n#include \"q.h\"\n\
             int main(void) { if ((uintptr_t)q_model % 64) return 1;\n\
             return fwrite(q_model, 1, Q_MODEL_BYTES, stdout) != Q_MODEL_BYTES; }\n";
    fs::write(dir.join("main.rs"), rust).unwrap();
    fs::write(dir.join("main.c"), c).unwrap();
    for (compiler, args, program) in [
        ("rustc", &["--edition=2024", "main.rs", "-o", "rust"][..], "rust"),
        ("cc", &["-std=c11", "-Wall", "-Werror", "main.c", "-o", "c"], "c"),
    ] {
        let compiled = Command::new(compiler).args(args).current_dir(dir).output().expect(compiler);
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let run = Command::new(dir.join(program)).output().unwrap();
        assert!(run.status.success() && run.stdout == file, "{program}");
    }
}

/// What cargo tells a test and a project must not hear.
const OUR_SETTINGS: [&str; 5] =
    ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "MAKEFLAGS", "CARGO_MANIFEST_DIR"];

/// What the projects print of an image: its picture, and the checksum of its bits.
fn printed(file: &[u8]) -> String {
    let model = Model::parse(file).unwrap();
    let integers = model.activations().is_some();
    let precision = if integers { Precision::Integer } else { Precision::Float };
    let plan = Plan::with_precision(&model, precision).unwrap();
    let settings = Settings { label: Some(3), ..Settings::default() };
    let mut arena = vec![0.0; settings.arena_len(&plan, &model)];
    let mut sampler = Sampler::new(&model, &plan, settings, &mut arena).unwrap();
    sampler.noise(42, 0);
    while sampler.step().unwrap() {}
    let image = sampler.image();
    let (height, width) = plan.image_size();
    let mut text = String::from("self-test passed\n");
    for y in (0..height).step_by(2) {
        for x in 0..width {
            let mean = f32::midpoint(image[y * width + x], image[(y + 1) * width + x]);
            let shade = f32::midpoint(mean, 1.0) * 10.0;
            let reached = (1..10u8).filter(|&i| shade >= f32::from(i)).count();
            text.push(char::from(b" .:-=+*#%@"[reached]));
        }
        text.push('\n');
    }
    let bytes = image.iter().flat_map(|value| value.to_le_bytes());
    let sum = bytes.fold(2_166_136_261u32, |sum, b| (sum ^ u32::from(b)).wrapping_mul(16_777_619));
    writeln!(text, "checksum {sum:08x}").unwrap();
    text
}

#[test]
#[ignore = "needs QEMU and the compilers for the chip"]
fn projects_draw_what_the_host_draws() {
    let dir = packed();
    let dir = dir.path();
    ok(dir, &["calibrate", "q.fmq", "-o", "integers.fmq"]);
    // C in floats, on the other board, is in the guide.
    for (file, lang, board, build) in [
        ("q.fmq", "rust", "mps2-an386", ["cargo", "run", "-rq"]),
        ("integers.fmq", "rust", "mps2-an500", ["cargo", "run", "-rq"]),
        ("integers.fmq", "c", "mps2-an386", ["make", "-s", "run"]),
        ("integers.fmq", "c", "mps2-an385", ["make", "-s", "run"]),
    ] {
        let expected = printed(&fs::read(dir.join(file)).unwrap());
        let to = format!("{lang}-{board}");
        ok(dir, &["export", file, "--firmware", &to, "--lang", lang, "--board", board]);
        let mut run = Command::new(build[0]);
        run.args(&build[1..]).current_dir(dir.join(&to)).stdin(Stdio::null());
        for name in OUR_SETTINGS {
            run.env_remove(name);
        }
        if lang == "rust" {
            // The engine is built once for both boards.
            run.env("CARGO_TARGET_DIR", dir.join("target"));
        }
        let run = run.output().expect(build[0]);
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{to}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&run.stdout), expected, "{to}");
    }
}

/// The first block of a language in `docs/firmware.md`.
fn block(language: &str) -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/firmware.md");
    let text = fs::read_to_string(guide).unwrap();
    let block = text.split_once(&format!("```{language}\n")).unwrap().1;
    block.split_once("```").unwrap().0.to_string()
}

/// The commands of `docs/firmware.md`, and the lines that they must print.
fn guide() -> Vec<(String, Vec<String>)> {
    let block = block("console");
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_string(), Vec::new())),
            None => commands.last_mut().unwrap().1.push(line.to_string()),
        }
    }
    commands
}

#[test]
#[ignore = "needs QEMU and the compilers for the chip"]
fn the_guide_does_what_it_says() {
    let commands = guide();
    assert_eq!(commands.len(), 10, "ten commands");
    let dir = tempfile::tempdir().unwrap();
    let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/mnist-micro.safetensors");
    fs::copy(net, dir.path().join("net.safetensors")).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_fmq")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for (command, expected) in commands {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &command])
            .current_dir(dir.path())
            .env("PATH", &path)
            .stdin(Stdio::null());
        for name in OUR_SETTINGS {
            shell.env_remove(name);
        }
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {stderr}");
        for line in expected {
            assert!(said.contains(&line), "{command}: no `{line}` in\n{said}");
        }
    }
    assert_eq!(
        fs::read(dir.path().join("net.bin")).unwrap(),
        fs::read(dir.path().join("net.fmq")).unwrap()
    );

    // Its program in C, beside the files of a project; that in Rust is a test of quant-core's documents.
    let program = "#include \"fmq.h\"\n#include \"plan.h\"\n".to_string() + &block("c");
    fs::write(dir.path().join("c-digit/guide.c"), program).unwrap();
    let compiled = Command::new("arm-none-eabi-gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-c", "guide.c"])
        .current_dir(dir.path().join("c-digit"))
        .output()
        .expect("arm-none-eabi-gcc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}
