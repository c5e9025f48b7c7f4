//! The command line: arguments to one call, an exit code back.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    ocelli::telemetry::logging::start();
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors. A closed pipe is nothing to complain about.
            let _ = error.print();
            return if error.use_stderr() { cli::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let code = match arguments.act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                log::error!("{}", failure.message);
            }
            failure.exit.into()
        }
    };
    log::logger().flush();
    code
}
