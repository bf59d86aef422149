//! `fmq sweep` and `fmq latent`: files, figures, going on, settings that differ.

use super::*;

/// Runs a small sweep in a [`sweep_folder`].
fn sweep(dir: &Path, more: &[&str]) -> Value {
    serde_json::from_str(&ok(dir, &arguments(more))).unwrap()
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let args =
        "sweep net.safetensors --data mnist --data-path . --schemes ot,lloyd-max -o out --json";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.extend(["--ode-options", r#"{"step_size": 0.5}"#]);
    args.extend(more);
    args
}

#[test]
fn a_sweep_scores_packed_files_and_restarts_where_it_stopped() {
    let dir = sweep_folder();
    let dir = dir.path();
    let first = sweep(dir, &["--bits", "3", "-n", "4"]);
    let second = sweep(dir, &["--bits", "2,3", "-n", "4"]);
    let rows = second["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let again = rows.iter().find(|row| row["bits"] == 3 && row["scheme"] == "ot").unwrap();
    assert_eq!(again, &first["rows"][0], "not computed again");
    let files = "results.json results.csv report.html fid.svg sqnr.svg psnr.svg pareto.svg \
        divergence_2.svg levels_2.svg grids/full.png grids/lloyd-max_2.png packed/ot_2.fmq";
    for file in files.split_whitespace() {
        assert!(dir.join("out").join(file).exists(), "{file}");
    }
    let html = fs::read_to_string(dir.join("out/report.html")).unwrap();
    for foreign in ["<script src", "<link", "src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!html.contains(foreign), "{foreign}");
    }

    // What was changed is said, and nothing is touched.
    let before = fs::read(dir.join("out/results.json")).unwrap();
    for (change, told) in [
        (&["--bits", "3", "-n", "5"][..], "its n is 4, not 5"),
        (&["--bits", "3", "-n", "4", "--seed", "7"], "its seed is 0, not 7"),
        (
            &["--bits", "3", "-n", "4", "--keep", "recommended"],
            "its quantizer options is none, not",
        ),
        (&["--bits", "3", "-n", "4", "--no-analyses"], "its analyses is true, not false"),
    ] {
        let error = fails(dir, &arguments(change));
        assert!(error.contains(told) && error.contains("results.json"), "{error}");
    }
    assert_eq!(fs::read(dir.join("out/results.json")).unwrap(), before);

    // So is what changed in the files under the same names, of the same sizes.
    let same = ["--bits", "3", "-n", "4"];
    for (half, salt, told) in
        [("t10k", 13, "its real images is"), ("train", 7, "its reference images is")]
    {
        write_half(dir, half, 11);
        let error = fails(dir, &arguments(&same));
        assert!(error.contains(told), "{error}");
        write_half(dir, half, salt);
    }
    let net = fs::read(dir.join("net.safetensors")).unwrap();
    let mut changed = net.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(dir.join("net.safetensors"), changed).unwrap();
    let error = fails(dir, &arguments(&same));
    assert!(error.contains("its weights is"), "{error}");
    fs::write(dir.join("net.safetensors"), net).unwrap();
    assert_eq!(sweep(dir, &same)["rows"][0], first["rows"][0]);
    fs::write(dir.join("out/results.json"), "{}").unwrap();
    let error = fails(dir, &arguments(&["--bits", "3", "-n", "4"]));
    assert!(error.contains("is not of this version's studies"), "{error}");
}

/// Makes the net do something: the last convolution of a fresh one is zero.
fn fill_last_convolution(dir: &Path) {
    let mut file = checkpoint::load(&dir.join("net.safetensors"), true).unwrap();
    for (name, tensor) in &mut file.tensors {
        if name == "out.2.weight" {
            let values = (0..tensor.elem_count()).map(|i| (i as f32 * 0.7).sin() * 0.05);
            let values = Tensor::from_iter(values, tensor.device()).unwrap();
            *tensor = values.reshape(tensor.shape()).unwrap();
        }
    }
    let net = config::to_json(&sweep_net());
    let metadata = [(checkpoint::NET_KEY, net.as_str())];
    checkpoint::safetensors::save(&dir.join("net.safetensors"), &file.tensors, &metadata).unwrap();
}

#[test]
fn rows_hold_the_analyses_of_their_net() {
    let folder = sweep_folder();
    let dir = folder.path();
    fill_last_convolution(dir);
    let found = sweep(dir, &["--bits", "2,8", "-n", "6", "--seeds", "2"]);
    let row = |scheme: &str, bits: u8| {
        let rows = found["rows"].as_array().unwrap().iter();
        let mut rows = rows.filter(|row| row["scheme"] == scheme && row["bits"] == bits);
        rows.next().unwrap().clone()
    };
    let number = |row: &Value, pointer: &str| {
        row.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {row}"))
    };
    let (coarse, fine) = (row("lloyd-max", 2), row("lloyd-max", 8));
    // Errors fall with the bits, whatever measures them.
    for pointer in ["/feature_distance", "/inversion/drift", "/bounds/error", "/bounds/weights"] {
        assert!(number(&coarse, pointer) > number(&fine, pointer), "{pointer}");
    }
    for pointer in ["/psnr_db", "/velocity_psnr_db", "/velocity_ssim"] {
        assert!(number(&coarse, pointer) < number(&fine, pointer), "{pointer}");
    }
    let divergence = coarse["divergence"].as_array().unwrap();
    assert_eq!(divergence.len(), 3);
    assert!(divergence[0] == 0.0 && divergence[1].as_f64() < divergence[2].as_f64());
    for row in [&coarse, &fine] {
        assert!(number(row, "/bounds/error") <= number(row, "/bounds/from_velocity"), "{row}");
        assert!(number(row, "/fid_error") > 0.0 && number(row, "/psnr_error") > 0.0, "{row}");
        assert_eq!(number(row, "/latent/units"), 32.0 * 784.0);
    }
    let summary = &found["summary"];
    assert_eq!((&summary["schema"], &summary["seeds"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(summary["lipschitz"]["t"], serde_json::json!([0.25, 0.75]));
    assert_eq!(summary["command"][1], "sweep");
    assert_eq!(number(summary, "/inversion/drift"), 0.0);

    // The same latents alone, of a packed file beside its original.
    let latent = |more: &[&str]| -> Value {
        let args = "latent out/packed/lloyd-max_2.fmq --against net.safetensors --data mnist \
            --data-path . --json -o latent";
        let mut args: Vec<&str> = args.split_whitespace().collect();
        args.extend(["--ode-options", r#"{"step_size": 0.5}"#]);
        args.extend(more);
        serde_json::from_str(&ok(dir, &args)).unwrap()
    };
    let alone = latent(&[]);
    assert_eq!(alone["latent"], coarse["latent"]);
    assert_eq!(alone["inversion"], coarse["inversion"]);
    assert_eq!((alone["n"].as_u64(), alone["n_inverted"].as_u64()), (Some(8), Some(8)));
    let csv = fs::read_to_string(dir.join("latent/variances.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + alone["variances_own"].as_array().unwrap().len());
    let file: Value =
        serde_json::from_slice(&fs::read(dir.join("latent/latent.json")).unwrap()).unwrap();
    assert_eq!(file, alone);
    let other = latent(&["--unit-range", "--invert", "0", "-n", "5"]);
    assert_eq!((&other["inversion"], other["n"].as_u64()), (&Value::Null, Some(5)));
    assert_ne!(other["latent"]["own"], alone["latent"]["own"]);
}

#[test]
fn samples_are_compared_with_the_images_of_the_folder() {
    let dir = sweep_folder();
    let dir = dir.path();
    let args = ["--bits", "3", "-n", "8", "--no-analyses"];
    let summary = |found: &Value| found["summary"].clone();
    let own = summary(&sweep(dir, &args));
    assert_eq!(own["fid_reference"], "the 8 images of mnist train in `.`");
    // The real images of the test half against the training half, as `fmq fid` has it.
    let args = ["fid", "mnist:test", "mnist:train", "--data-path", ".", "--json"];
    let fid: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    let (found, right) = (own["fid_real"].as_f64().unwrap(), fid["fid"].as_f64().unwrap());
    assert!((found / right - 1.0).abs() < 1e-9, "{found} {right}");

    // Without a folder all is built in, and says so.
    let mut args = arguments(&["--bits", "3", "-n", "2", "--no-analyses"]);
    args.retain(|&argument| argument != "--data-path" && argument != ".");
    let at = args.iter().position(|&argument| argument == "out").unwrap();
    args[at] = "built-in";
    let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    let name = "the 60 000 images of MNIST train, built in";
    assert_eq!(json["summary"]["fid_reference"], name);

    // No training half, no distance.
    fs::remove_file(dir.join("train-images-idx3-ubyte")).unwrap();
    let error = fails(dir, &arguments(&["--bits", "3", "-n", "4"]));
    assert!(error.contains("no `train-images-idx3-ubyte` here"), "{error}");
}

#[test]
fn rows_of_other_features_do_not_mix() {
    let folder = super::fid::inception();
    let dir = folder.path();
    let net = sweep_folder();
    for name in ["net.safetensors", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::copy(net.path().join(name), dir.join(name)).unwrap();
    }
    write_half(dir, "train", 7);
    let mut args = arguments(&["--bits", "3", "-n", "4", "--no-analyses"]);
    args.extend(["--features", "inception-64", "--weights", "inception.safetensors"]);
    ok(dir, &args);
    let mut weights = checkpoint::load(&dir.join("inception.safetensors"), true).unwrap().tensors;
    weights[0].1 = (&weights[0].1 * 2.0).unwrap();
    checkpoint::safetensors::save(&dir.join("inception.safetensors"), &weights, &[]).unwrap();
    let error = fails(dir, &args);
    assert!(error.contains("its features is inception-64, weights"), "{error}");
}

#[test]
fn refined_rows_stand_beside_their_scheme() {
    let folder = sweep_folder();
    let dir = folder.path();
    fill_last_convolution(dir);
    let schemes = ["--schemes", "lloyd-max,lloyd-max+feedback,lloyd-max+tune", "--no-analyses"];
    let args = |steps: &'static str| {
        let mut args: Vec<&str> =
            "sweep net.safetensors --data mnist --data-path . --bits 1.58 -n 4 \
            -o out --json"
                .split_whitespace()
                .collect();
        args.extend(schemes);
        args.extend(["--tune-steps", steps]);
        args
    };
    let found: Value = serde_json::from_str(&ok(dir, &args("5"))).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["scheme"].as_str().unwrap()).collect();
    assert_eq!(names, ["lloyd-max", "lloyd-max+feedback", "lloyd-max+tune"]);
    assert_eq!(rows[0]["packed_bytes"], rows[1]["packed_bytes"]);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    assert!(number(&rows[1], "sqnr_db") < number(&rows[0], "sqnr_db"));
    assert_eq!((&rows[1]["tune_steps"], &rows[2]["tune_steps"]), (&Value::Null, &5.into()));
    for row in rows {
        let name = format!("out/packed/{}_1.58.fmq", row["scheme"].as_str().unwrap());
        let bytes = fs::metadata(dir.join(name)).unwrap().len();
        assert_eq!(row["packed_bytes"].as_u64(), Some(bytes));
        assert!(number(row, "mean_psnr_db") > 0.0 && row["bits"] == 1.58);
    }
    let original = parameters(dir, "net.safetensors");
    assert_eq!(found["summary"]["parameters"], original);
    assert!(parameters(dir, "out/packed/lloyd-max+tune_1.58.fmq") < original);
    for row in rows {
        assert_sizes_are_over(original, row);
    }
    let notes = found["summary"]["notes"].to_string();
    assert!(notes.contains("Rows +tune have vectors in 8 or 16 bits"), "{notes}");
    // The same again is there already; other steps are another study.
    let again: Value = serde_json::from_str(&ok(dir, &args("5"))).unwrap();
    assert_eq!(again["rows"], found["rows"]);
    let error = fails(dir, &args("6"));
    assert!(error.contains("holds rows tuned in 5 steps, not 6"), "{error}");
}
