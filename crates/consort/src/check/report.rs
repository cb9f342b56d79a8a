//! What `consort check` prints.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use super::finding::Finding;
use super::inspection::Inspection;

/// The findings, one a line, and a closing line that sums them up.
pub(super) fn text(inspection: &Inspection) -> String {
    let mut text = String::new();
    for finding in &inspection.findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{finding}");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "{}", summary(inspection));
    text
}

fn summary(inspection: &Inspection) -> String {
    let models = inspection.models.len();
    let problems = inspection.problems().count();
    let bad: BTreeSet<&str> = inspection.problems().map(|finding| &*finding.model).collect();
    match (problems, models) {
        (0, 0) => "there is no model".to_owned(),
        (0, 1) => "1 model is good".to_owned(),
        (0, _) => format!("{models} models are good"),
        (1, _) => format!("1 problem in 1 of {models} models"),
        _ => format!("{problems} problems in {} of {models} models", bad.len()),
    }
}

/// The same for programs.
pub(super) fn json(inspection: &Inspection) -> Result<String> {
    let finding = |finding: &Finding| {
        json!({
            "model": finding.model,
            "file": finding.problem.file,
            "line": finding.problem.place.map(|place| place.line),
            "column": finding.problem.place.map(|place| place.column),
            "message": finding.problem.message,
            "help": finding.problem.help,
        })
    };
    let notes = inspection.findings.iter().filter(|finding| finding.is_note);
    let report = json!({
        "models": inspection.models.keys().collect::<Vec<_>>(),
        "problems": inspection.problems().map(finding).collect::<Vec<_>>(),
        "notes": notes.map(finding).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
