//! `dinoserve man DIR`.

use std::{fs, io::Write, path::PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;

use super::output::write_file;
use crate::{error::Error, names::plural};

/// Writes a manual page for each command, such as `dinoserve-serve.1`, as in `dinoserve man
/// ~/.local/share/man/man1`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Folder of the pages
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self, mut program: Command) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder).map_err(|error| Error::writing(&self.folder, error))?;
        program.build();
        let mut count = 0;
        let mut commands = vec![program];
        while let Some(command) = commands.pop() {
            commands.extend(
                command
                    .get_subcommands()
                    .filter(|sub| has_page(sub))
                    .cloned(),
            );
            let page = Page::new(command);
            let path = self.folder.join(page.get_filename());
            write_file(&path, |writer| page.render(writer))?;
            count += 1;
        }
        let pages = plural(count, "page");
        writeln!(
            std::io::stdout(),
            "{pages} written to {}",
            self.folder.display()
        )?;
        Ok(())
    }
}

fn has_page(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}
