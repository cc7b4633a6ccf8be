//! What the Makefile calls: `build` makes every program and image, `tidy` checks what no other tool checks.
//!
//! No dependencies, so that it is compiled within a second or two on a machine that has nothing yet.
#![expect(clippy::print_stderr, reason = "commands speak to those who type them")]
#![expect(unreachable_pub, reason = "`pub` marks what the other modules of this program use")]

use std::process::ExitCode;

mod build;
mod progress;
mod tidy;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build"] => build::run(&build::Wanted::Everything),
        ["build", "control-plane"] => build::run(&build::Wanted::ControlPlane),
        ["tidy"] => tidy::run(),
        _ => Err("usage: cargo xtask build [control-plane] | tidy".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
