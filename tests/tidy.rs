//! Style as a unit test: what every file keeps true is checked, and each rule is shown to be able to fail.

use std::path::{Path, PathBuf};

const FILE_MAX: usize = 600;
const FUNCTION_MAX: usize = 70;
const BANNED: [&str; 6] = ["util", "utils", "helpers", "common", "misc", "types"];

/// Which crate may import which.
const ARROWS: [(&str, &[&str]); 5] = [
    ("repo-format", &["bulla_engine", "bulla_backends", "bulla_manager"]),
    (
        "engine",
        &["bulla_backends", "bulla_manager", "clap", "indicatif", "serde_json", "std::env::var", "println!"],
    ),
    ("backends", &["bulla_manager", "clap"]),
    ("manager", &["bulla_backends", "bulla_repo_format", "clap", "std::env::var", "println!"]),
    ("cli", &["bulla_repo_format"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All Rust files of the workspace, relative to its root, with their text.
fn sources() -> Vec<(String, String)> {
    let (mut out, mut stack) = (Vec::new(), vec![root()]);
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                stack.push(path);
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                out.push((relative, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(out.len() > 60, "the walk found {} files", out.len());
    out
}

/// Lines before the inline tests.
fn code(text: &str) -> Vec<&str> {
    text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).collect()
}

/// What is wrong with one file.
fn flaws(path: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("#!") {
        out.push("does not open with //!".to_owned());
    }
    let lines = code(text);
    let tests = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs");
    if lines.len() > FILE_MAX && !tests {
        out.push(format!("has {} lines of code", lines.len()));
    }
    let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
    let folder = Path::new(path).parent().and_then(|p| p.file_name()).and_then(|n| n.to_str()).unwrap_or("");
    if BANNED.contains(&stem) || BANNED.contains(&folder) {
        out.push("has a name that says nothing".to_owned());
    }
    out.extend(long_functions(&lines));
    for mark in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
    ] {
        if text.contains(mark) {
            out.push(format!("has an unfinished mark {mark}"));
        }
    }
    for (krate, banned) in ARROWS {
        if path.starts_with(&format!("{krate}/src/")) {
            out.extend(
                banned.iter().filter(|b| text.contains(**b)).map(|b| format!("uses {b} against the arrows")),
            );
        }
    }
    out
}

/// Functions by indentation: from a line with `fn ` to the closing brace at the same depth.
fn long_functions(lines: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_fn = line.trim_start().split("fn ").count() > 1 && !line.trim_start().starts_with("//");
        if !is_fn || line.trim_end().ends_with(';') || line.contains('"') {
            continue;
        }
        let end = lines.iter().skip(start + 1).position(|l| {
            l.starts_with(&" ".repeat(indent))
                && l.trim_start().starts_with('}')
                && l.len() - l.trim_start().len() == indent
        });
        if let Some(len) = end.filter(|len| *len > FUNCTION_MAX) {
            out.push(format!("has a function of {len} lines: {}", line.trim()));
        }
    }
    out
}

/// `SPEC 7.3` in code, `## 7.` or `### 7.3` in SPEC.md.
fn unknown_sections(text: &str, spec: &str) -> Vec<String> {
    let exists = |number: &str| {
        spec.lines().any(|l| {
            let title = l.trim_start_matches('#').trim_start();
            l.starts_with("##")
                && title.strip_prefix(number).is_some_and(|r| r.starts_with([' ', '.']) || r.is_empty())
        })
    };
    text.match_indices("SPEC ")
        .map(|(at, _)| &text[at + 5..])
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>())
        .map(|n| n.trim_end_matches('.').to_owned())
        .filter(|n| !n.is_empty() && !exists(n))
        .collect()
}

#[test]
fn every_file_is_tidy() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(p, t)| flaws(p, t).into_iter().map(move |f| format!("{p} {f}")))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn sections_of_the_specification_that_code_cites_exist() {
    let spec = std::fs::read_to_string(root().join("SPEC.md")).unwrap();
    let found: Vec<String> = sources()
        .iter()
        .filter(|(p, _)| p != "tests/tidy.rs")
        .flat_map(|(p, t)| unknown_sections(t, &spec).into_iter().map(move |n| format!("{p} cites SPEC {n}")))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn each_rule_can_fail() {
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_MAX + 1));
    let huge = format!("//! x\n{}", "const A: u8 = 1;\n".repeat(FILE_MAX));
    for (path, text, word) in [
        ("engine/src/a.rs", "fn f() {}\n", "//!"),
        ("engine/src/util.rs", "//! x\n", "says nothing"),
        ("engine/src/a.rs", long.as_str(), "function of"),
        ("engine/src/a.rs", huge.as_str(), "lines of code"),
        ("engine/src/a.rs", concat!("//! x\n// TO", "DO\n"), "unfinished"),
        ("engine/src/a.rs", "//! x\nuse clap::Parser;\n", "arrows"),
        ("repo-format/src/a.rs", "//! x\nuse bulla_engine::x;\n", "arrows"),
    ] {
        assert!(flaws(path, text).iter().any(|f| f.contains(word)), "{path}: {word}");
    }
    assert!(flaws("engine/src/a.rs", "//! x\nfn f() {}\n").is_empty());
    assert_eq!(unknown_sections("see SPEC 7.3 and SPEC 99.", "## 7. Packs\n### 7.3 Frames\n"), ["99"]);
}
