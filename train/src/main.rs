//! The `dinoserve-train` program; everything is in the library.

fn main() -> std::process::ExitCode {
    dinoserve_train::cli::main()
}
