//! The `stoa` program.

fn main() -> std::process::ExitCode {
    stoa::cli::main()
}
