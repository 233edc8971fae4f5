//! `dinoserve completions`.

use clap::{Args, Command};
use clap_complete::Shell;

/// Prints a completion script, as in
/// `dinoserve completions bash > /etc/bash_completion.d/dinoserve`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Shell to complete for
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut program: Command) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "dinoserve", &mut script);
        // The reader may have closed the pipe, as in `… | head`.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    }
}
