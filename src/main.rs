//! The `ckpt-fs` binary: hands the command line to the library and exits with what it answers.

use std::process::ExitCode;

fn main() -> ExitCode {
    ckpt_fs::cli::main()
}
