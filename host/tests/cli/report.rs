//! The report of a sweep in a browser.
//!
//! Headless Chromium: `FMQ_CHROMIUM`, or one of the usual names on `PATH`.

use core::time::Duration;
use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::{ok, sweep_folder};

/// Presses the report's buttons.
const PROBE: &str = include_str!("report.js");

/// A page that shows the report as wide as a phone, and writes down what the probe tells.
const AROUND: &str = r#"<!doctype html><pre id="seen"></pre>
<iframe src="probed.html" width="390" height="800"></iframe>
<script>
onmessage = (told) => document.getElementById("seen").textContent = JSON.stringify(told.data);
</script>
"#;

/// How long a browser may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The report of a small sweep: `report.html` in the returned folder.
fn report(dir: &Path) -> PathBuf {
    let mut args = vec!["sweep", "net.safetensors", "--data", "mnist", "--data-path", "."];
    args.extend(["--schemes", "ot,uniform", "--bits", "2,3", "-n", "4", "-o", "out"]);
    args.extend(["--ode-options", r#"{"step_size": 0.5}"#]);
    ok(dir, &args);
    dir.join("out")
}

/// A browser to test with.
fn browser() -> Option<PathBuf> {
    if let Some(named) = env::var_os("FMQ_CHROMIUM") {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
}

/// Opens `page` of `dir`, which no page can leave; returns standard output and what pages said on
/// the console.
fn open(browser: &Path, dir: &Path, page: &str, flags: &[&str]) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let file = |name: &str| profile.path().join(name);
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(format!("file://{}", dir.join(page).display()))
        .current_dir(profile.path())
        .stdin(Stdio::null())
        .stdout(File::create(file("out")).unwrap())
        .stderr(File::create(file("err")).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let text = |name| String::from_utf8_lossy(&fs::read(file(name)).unwrap()).into_owned();
    let log = text("err");
    assert!(status.is_some_and(|status| status.success()), "{page}: {status:?}\n{log}");
    let said = log.lines().filter(|line| line.contains("CONSOLE")).map(String::from);
    (text("out"), said.collect())
}

/// The numbers before any interval.
fn numbers(texts: &Value) -> Vec<f64> {
    let first = |text: &Value| text.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    texts.as_array().unwrap().iter().map(first).collect()
}

#[test]
#[ignore = "needs Chromium"]
fn the_report_works_in_a_browser() {
    let browser = browser().expect("no Chromium on PATH");
    let dir = sweep_folder();
    let dir = report(dir.path());

    for (scheme, name) in [("1", "light.png"), ("0", "dark.png")] {
        let picture = dir.join(name);
        let screenshot = format!("--screenshot={}", picture.display());
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let flags = ["--window-size=1200,900", &screenshot, &scheme];
        let (_, said) = open(&browser, &dir, "report.html", &flags);
        assert!(said.is_empty(), "{said:?}");
        let (size, paper, colors) = seen(&picture);
        assert_eq!(size, (1200, 900));
        assert!(colors > 20, "{name} has {colors} colours");
        assert_eq!(paper > 128, name == "light.png", "{name} is on {paper}");
    }

    let html = fs::read_to_string(dir.join("report.html")).unwrap();
    assert_eq!(html.matches("</body>").count(), 1);
    let probed = html.replace("</body>", &format!("<script>{PROBE}</script></body>"));
    fs::write(dir.join("probed.html"), probed).unwrap();
    fs::write(dir.join("around.html"), AROUND).unwrap();
    let flags = ["--dump-dom", "--virtual-time-budget=5000"];
    let (dom, said) = open(&browser, &dir, "around.html", &flags);
    assert!(said.len() == 1 && said[0].contains("the probe is through"), "{said:?}");
    let (_, told) = dom.split_once("<pre id=\"seen\">").unwrap();
    let told = told.split_once("</pre>").unwrap().0.replace("&amp;", "&");
    let seen: Value = serde_json::from_str(&told).unwrap();

    assert_eq!(seen["order"], json!([null, "ascending", "descending", null]));
    let sorted: Vec<Vec<f64>> = (0..4).map(|i| numbers(&seen["sorted"][i])).collect();
    assert_eq!(sorted[0].len(), 4);
    assert!(!sorted[0].is_sorted(), "else sorting shows nothing: {:?}", sorted[0]);
    assert!(sorted[1].is_sorted() && sorted[2].is_sorted_by(|a, b| a >= b), "{sorted:?}");
    assert_eq!(sorted[3], sorted[0], "the third press restores the order");
    assert_eq!(seen["schemes"], json!(["ot", "ot", "uniform", "uniform"]));

    assert!(seen["ranges"].as_u64().unwrap() > 0);
    let shown = |at: usize| -> BTreeSet<u64> {
        seen["shown"][at].as_array().unwrap().iter().map(|bits| bits.as_u64().unwrap()).collect()
    };
    assert_eq!([shown(0), shown(1)], [[2].into(), [3].into()]);
    let moved = seen["moved"].as_array().unwrap();
    assert!(moved.iter().all(|value| value == "1"), "sliders move together: {moved:?}");

    let loaded = seen["loaded"].as_array().unwrap();
    assert!(loaded.iter().all(|name| name.as_str().unwrap().starts_with("data:")), "{loaded:?}");
    assert_eq!(seen["pictures"], 6, "full precision, real images, and one for each row");
    assert_eq!(seen["width"], json!([390, 390]), "nothing sticks out of a phone");
}

/// Size of a screenshot, the brightness of its first pixel, and how many colours it has.
fn seen(picture: &Path) -> ((u32, u32), u8, usize) {
    let file = std::io::BufReader::new(File::open(picture).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let colors: BTreeSet<&[u8]> = pixels.chunks_exact(info.color_type.samples()).collect();
    ((info.width, info.height), pixels[0], colors.len())
}
