//! The `stoa` program, as the end-to-end tests start it: the same entry point, built as one of their own programs.

fn main() -> std::process::ExitCode {
    stoa::cli::main()
}
