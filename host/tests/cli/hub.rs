//! `fmq export --hub`, and folders as checkpoints.

use fm_candle::model::EmbeddingProjector;

use super::train::{TRAIN, idx};
use super::*;

const EMBEDDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/mnist-micro.safetensors");

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The facts that `fmq inspect` lists.
fn catalogue(dir: &Path, name: &str) -> Value {
    json(&ok(dir, &["inspect", name, "--json"]))["catalogue"].clone()
}

/// The bytes of two samples of a checkpoint.
fn samples(dir: &Path, name: &str) -> Vec<u8> {
    ok(dir, &["sample", name, "-n", "2", "--steps", "2", "-o", "two.safetensors"]);
    fs::read(dir.join("two.safetensors")).unwrap()
}

/// Names of the files in a folder.
fn files(dir: &Path) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    names(dir).iter().map(name).collect()
}

/// The line of a card that begins so, up to its end.
fn line<'a>(card: &'a str, start: &str) -> &'a str {
    let at = card.find(start).unwrap_or_else(|| panic!("no `{start}` in {card}"));
    card[at..].split(['\n', '`']).next().unwrap()
}

#[test]
fn a_folder_draws_what_its_file_draws_and_its_card_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = ok(dir, &["export", EMBEDDED, "--hub", "micro", "--license", "mit", "--seed", "5"]);
    assert!(said.contains("wrote `micro/model.safetensors`\n"), "{said}");
    let expected = ["README.md", "config.json", "model.safetensors", "samples.png"];
    assert_eq!(files(&dir.join("micro")), expected);
    assert_eq!(samples(dir, "micro"), samples(dir, EMBEDDED));

    let config = fs::read_to_string(dir.join("micro/config.json")).unwrap();
    assert_eq!(config::from_json(&config).unwrap(), UNetConfig::preset("mnist-micro").unwrap());
    assert!(config.contains("\n  \"model_channels\": 32,\n"), "{config}");

    let card = fs::read_to_string(dir.join("micro/README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: mit\npipeline_tag: "), "{card}");
    for unknown in ["datasets", "model-index", "## Training", "## Metrics"] {
        assert!(!card.contains(unknown), "{unknown}: {card}");
    }
    let command = line(&card, "fmq sample micro -n 16");
    ok(dir, &command.split(' ').skip(1).collect::<Vec<_>>());
    let picture = |name: &str| fs::read(dir.join(name)).unwrap();
    assert!(picture("samples.png") == picture("micro/samples.png"), "{command}");

    let facts = catalogue(dir, "micro");
    assert_eq!((&facts["license"], &facts["dataset"]), (&"mit".into(), &Value::Null), "{facts}");
    assert!(ok(dir, &["inspect", "micro"]).contains("\nlicence: mit\n"));
    // What the metadata say goes on with the weights.
    ok(dir, &["export", "micro", "--hub", "again"]);
    assert_eq!(catalogue(dir, "again"), facts);
}

#[test]
fn a_packed_file_lies_beside_its_dequantized_weights() {
    let dir = folder();
    let dir = dir.path();
    let quantize = |bits: &str, to: &str| {
        let args = ["quantize", "net.safetensors", "--scheme", "lloyd-max", "--bits", bits];
        ok(dir, &[&args[..], &["-o", to]].concat());
    };
    quantize("2", "q2.fmq");
    quantize("3", "q3.fmq");
    ok(dir, &["export", "q2.fmq", "--hub", "hub", "--packed", "q3.fmq"]);
    for name in ["q2.fmq", "q3.fmq"] {
        let read = |path: PathBuf| fs::read(path).unwrap();
        assert!(read(dir.join("hub").join(name)) == read(dir.join(name)), "{name}");
    }
    ok(dir, &["unpack", "q2.fmq", "-o", "unpacked.safetensors"]);
    assert!(weights(dir, "hub") == weights(dir, "unpacked.safetensors"));
    assert_eq!(samples(dir, "hub"), samples(dir, "q2.fmq"));

    let packed = catalogue(dir, "hub")["packed"].clone();
    let bits = |name: &str| 8.0 * fs::metadata(dir.join(name)).unwrap().len() as f64;
    for (i, name) in ["q2.fmq", "q3.fmq"].into_iter().enumerate() {
        assert_eq!(packed[i]["file"], name);
        let of_weights = bits(name) / parameters(dir, "net.safetensors") as f64;
        assert_eq!(packed[i]["bits_per_weight"], of_weights, "{packed}");
    }
    let alone = &catalogue(dir, "q2.fmq")["packed"];
    assert_eq!((&alone[0], alone.as_array().unwrap().len()), (&packed[0], 1));
    let text = ok(dir, &["inspect", "hub"]);
    assert!(text.contains("\npacked: q3.fmq, "), "{text}");

    let card = fs::read_to_string(dir.join("hub/README.md")).unwrap();
    for part in ["\n- quantized\n", "those of `q2.fmq`, dequantized", "\n| `q3.fmq` | "] {
        assert!(card.contains(part), "{part}: {card}");
    }
    let command = line(&card, "fmq sample hub/q3.fmq");
    ok(dir, &command.split(' ').skip(1).collect::<Vec<_>>());
}

#[test]
fn a_projection_is_multiplied_out() {
    let dir = folder();
    let dir = dir.path();
    let tensors = checkpoint::load(&dir.join("net.safetensors"), false).unwrap().tensors;
    let (net, tensors) = EmbeddingProjector::new(&tiny(), &tensors).unwrap().project(8).unwrap();
    let json = config::to_json(&net);
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    checkpoint::safetensors::save(&dir.join("t.safetensors"), &tensors, &metadata).unwrap();
    let quantize = "quantize t.safetensors --scheme lloyd-max --bits 4 -o t.fmq";
    ok(dir, &quantize.split(' ').collect::<Vec<_>>());
    assert!(ok(dir, &["inspect", "t.fmq"]).contains("\"embedding_rank\":8"));
    ok(dir, &["export", "t.fmq", "--hub", "hub"]);
    ok(dir, &["unpack", "t.fmq", "-o", "unpacked.safetensors"]);
    assert!(weights(dir, "hub") == weights(dir, "unpacked.safetensors"));
    // And the packed file is of the same net as what it was made from.
    ok(dir, &["export", "net.safetensors", "--hub", "both", "--packed", "t.fmq"]);
    let packed = catalogue(dir, "both")["packed"][0]["bits_per_weight"].as_f64().unwrap();
    let bits = 8.0 * fs::metadata(dir.join("t.fmq")).unwrap().len() as f64;
    assert_eq!(packed, bits / parameters(dir, "net.safetensors") as f64);
}

#[test]
fn the_facts_of_a_run_are_in_its_weights_and_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    ok(dir, &[&TRAIN[..], &["--epochs", "2", "--seed", "4"]].concat());
    let log = fs::read_to_string(dir.join("run/log.txt")).unwrap();
    let losses: Vec<f64> =
        log.lines().map(|line| json(line)["train_loss"].as_f64().unwrap()).collect();
    for (file, epochs) in [
        ("run", 2),
        ("run/model.safetensors", 2),
        ("run/checkpoint.pth", 2),
        ("run/checkpoint-0.pth", 1),
    ] {
        let facts = catalogue(dir, file);
        assert_eq!(facts["dataset"], "mnist", "{file}: {facts}");
        assert_eq!(facts["epochs"], epochs, "{file}: {facts}");
        assert_eq!(facts["loss"], losses[epochs - 1], "{file}: {facts}");
        assert_eq!(facts["fid"], Value::Null, "{file}: {facts}");
    }
    assert_eq!(samples(dir, "run"), samples(dir, "run/model.safetensors"));

    ok(dir, &["export", "run", "--hub", "hub"]);
    assert_eq!(catalogue(dir, "hub"), catalogue(dir, "run"));
    let card = fs::read_to_string(dir.join("hub/README.md")).unwrap();
    for part in [
        "\n- ylecun/mnist\n",
        "moving average (EMA)",
        "\n- Epochs: 2\n",
        &format!("\n| 1 | {:.5} |  |\n", losses[1]),
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    // The command of the card trains the same net.
    let command = line(&card, "fmq train ").replace(" DIR ", " mnist ");
    let command = command.replace(" config.json", " hub/config.json");
    let again = command.split(' ').skip(1).chain(["--output_dir", "again"]);
    ok(dir, &again.collect::<Vec<_>>());
    assert!(weights(dir, "again") == weights(dir, "run"), "{command}");

    // An earlier checkpoint has the facts of its own epoch.
    ok(dir, &["export", "run/checkpoint-0.pth", "--hub", "early"]);
    let card = fs::read_to_string(dir.join("early/README.md")).unwrap();
    assert!(card.contains("\n- Epochs: 1\n") && !card.contains("\n| 1 | "), "{card}");
    assert!(card.contains("moving average (EMA)"), "{card}");
}

#[test]
fn distances_of_a_run_count_for_the_weights_that_they_were_measured_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    ok(dir, &[&TRAIN[..], &["--epochs", "1"]].concat());
    let log = dir.join("run/log.txt");
    let entry = fs::read_to_string(&log).unwrap();
    let entry = entry.trim_end().trim_end_matches('}').to_string();
    fs::write(&log, entry + ",\"eval_fid\":9.5,\"eval_fid_samples\":20}\n").unwrap();
    let fid = |name: &str, more: &[&str]| {
        ok(dir, &[&["export", name, "--hub", "hub"], more].concat());
        let fid = catalogue(dir, "hub")["fid"].clone();
        fs::remove_dir_all(dir.join("hub")).unwrap();
        fid
    };
    for name in ["run", "run/checkpoint.pth"] {
        let fid = fid(name, &[]);
        assert_eq!((&fid["name"], &fid["value"]), (&"FID".into(), &9.5.into()), "{fid}");
        assert_eq!((&fid["samples"], &fid["reference"]), (&20.into(), &"mnist train".into()));
    }
    assert_eq!(fid("run/checkpoint.pth", &["--raw-weights"]), Value::Null);
    ok(dir, &"quantize run --scheme ot --bits 4 -o run/q.fmq".split(' ').collect::<Vec<_>>());
    assert_eq!(fid("run/q.fmq", &[]), Value::Null);

    // Of a run of another net nothing is taken.
    save(&dir.join("run/other.safetensors"), |_, tensor| tensor);
    let args = fs::read_to_string(dir.join("run/args.json")).unwrap();
    let args = args.replace("\"num_heads\": 1", "\"num_heads\": 2");
    fs::write(dir.join("run/args.json"), args).unwrap();
    let output = fmq(dir, &["export", "run/other.safetensors", "--hub", "other"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("warning: `run/args.json` is of another net"), "{stderr}");
    assert_eq!(catalogue(dir, "other")["dataset"], Value::Null);
}

#[test]
fn distances_of_a_sweep_are_those_of_the_same_weights() {
    let dir = sweep_folder();
    let dir = dir.path();
    let sweep = "sweep net.safetensors --data mnist --data-path . --schemes ot --bits 3 -n 4 \
        --no-analyses --steps 1 -o out --json";
    let results = json(&ok(dir, &sweep.split_whitespace().collect::<Vec<_>>()));
    let export = |name: &str, to: &str, packed: &[&str]| {
        let args = ["export", name, "--hub", to, "--results", "out/results.json"];
        ok(dir, &[&args[..], packed].concat());
        let card = fs::read_to_string(dir.join(to).join("README.md")).unwrap();
        (catalogue(dir, to)["fid"].clone(), card)
    };
    let (fid, card) = export("net.safetensors", "hub", &["--packed", "out/packed/ot_3.fmq"]);
    assert_eq!(fid["value"], results["summary"]["fid_full"]);
    assert_eq!((&fid["name"], &fid["samples"]), (&"FID (LeNet features)".into(), &4.into()));
    assert_eq!(fid["reference"], "the 8 images of mnist train");
    for name in ["model.safetensors", "ot_3.fmq"] {
        assert!(card.contains(&format!("name: \"FID (LeNet features), {name}\"")), "{card}");
        assert!(card.contains(&format!("- `{name}`: FID (LeNet features) ")), "{card}");
    }
    assert!(ok(dir, &["inspect", "hub"]).contains("\nFID (LeNet features) "));
    let (fid, _) = export("out/packed/ot_3.fmq", "packed", &[]);
    assert_eq!(fid["value"], results["rows"][0]["fid"]);

    // Neither other weights nor other codes have these distances.
    ok(
        dir,
        &"quantize net.safetensors --scheme ot --bits 2 -o q.fmq".split(' ').collect::<Vec<_>>(),
    );
    ok(dir, &["unpack", "q.fmq", "-o", "other.safetensors"]);
    for (name, told) in [
        ("other.safetensors", "out/results.json`: is of weights with the fingerprint "),
        ("q.fmq", "none of the sweep's packed files has these bytes"),
    ] {
        let error = fails(dir, &["export", name, "--hub", "no", "--results", "out/results.json"]);
        assert!(error.contains(told) && error.contains(name), "{error}");
    }
}

#[test]
fn a_folder_of_another_program_says_its_net_beside_the_weights() {
    let dir = folder();
    let dir = dir.path();
    fs::create_dir(dir.join("other")).unwrap();
    let tensors = checkpoint::load(&dir.join("net.safetensors"), false).unwrap().tensors;
    checkpoint::safetensors::save(&dir.join("other/model.safetensors"), &tensors, &[]).unwrap();
    let error = fails(dir, &["sample", "other", "-n", "1", "-o", "x.png"]);
    assert!(error.contains("does not say which net it holds"), "{error}");
    let with_arch = ["sample", "other", "-n", "1", "-o", "x.png", "--arch", "other/config.json"];
    fs::write(dir.join("other/config.json"), config::to_json(&tiny())).unwrap();
    assert!(fails(dir, &with_arch).contains("the file says its own net"));
    assert_eq!(samples(dir, "other"), samples(dir, "net.safetensors"));
    ok(dir, &"quantize other --scheme ot --bits 2 -o a.fmq".split(' ').collect::<Vec<_>>());
    ok(
        dir,
        &"quantize net.safetensors --scheme ot --bits 2 -o b.fmq".split(' ').collect::<Vec<_>>(),
    );
    assert!(fs::read(dir.join("a.fmq")).unwrap() == fs::read(dir.join("b.fmq")).unwrap());
    fs::write(dir.join("other/config.json"), "{\"chanel_mult\": [1]}").unwrap();
    let error = fails(dir, &["sample", "other", "-n", "1", "-o", "x.png"]);
    assert!(error.contains("`other`: net configuration: unknown field `chanel_mult`"), "{error}");
}

#[test]
fn a_folder_with_weights_is_drawn_from_where_images_are_judged() {
    let dir = sweep_folder();
    let dir = dir.path();
    fs::create_dir(dir.join("net")).unwrap();
    fs::copy(dir.join("net.safetensors"), dir.join("net/model.safetensors")).unwrap();
    let fid = json(&ok(dir, &["fid", "net", "net.safetensors", "-n", "4", "--json"]));
    assert!(fid["fid"].as_f64().unwrap().abs() < 1e-6, "{fid}");
    // Where only images can be meant, they are the folder's.
    ok(dir, &["sample", "net.safetensors", "-n", "1", "--steps", "1", "-o", "one"]);
    fs::copy(dir.join("one/000000.png"), dir.join("net/0.png")).unwrap();
    for images in ["net", "one"] {
        let output = format!("{images}.x0.safetensors");
        let args =
            ["encode", "net", images, "--ode-method", "euler", "--steps", "1", "-o", &output];
        ok(dir, &args);
    }
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    assert!(read("net.x0.safetensors") == read("one.x0.safetensors"));
}
