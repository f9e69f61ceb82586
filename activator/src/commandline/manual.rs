//! Completions for shells, and pages of the manual. In: the definition of the command line. Out: text, or files.
#![expect(clippy::disallowed_methods, reason = "shell: it writes the pages to a folder")]

use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::failure::CommandFailure;
use super::terminal::Terminal;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell, mut command: Command) -> Result<(), CommandFailure> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    Terminal::of_process().print(&String::from_utf8_lossy(&text))
}

/// Prints the page of the program, or writes those of all commands to a folder.
pub(super) fn pages(folder: Option<&Path>, mut command: Command) -> Result<(), CommandFailure> {
    command.build();
    let Some(folder) = folder else {
        return Terminal::of_process().print(&page(command)?);
    };
    let unwritten = |error| CommandFailure::Refused(format!("{} cannot be written: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(unwritten)?;
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        // Each command has a `help` of its own, which says what its page says.
        left.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        std::fs::write(folder.join(format!("{name}.1")), page(command)?).map_err(unwritten)?;
    }
    Ok(())
}

/// The page of one command. Note: `man` prints the title at both sides of the header, with the manual between them, and cuts what does not fit into 80
/// columns; so a command's title is its own words. An empty date would have the source take its place.
fn page(command: Command) -> Result<String, CommandFailure> {
    const PROGRAM: &str = "liveedgecast-activator";
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let title = name.strip_prefix(PROGRAM).and_then(|words| words.strip_prefix('-')).unwrap_or(&name).to_owned();
    let page = Man::new(command).title(title).date(env!("CARGO_PKG_VERSION"));
    let mut text = Vec::new();
    let rendered = page.source(PROGRAM).manual("LiveEdgeCast").render(&mut text);
    rendered.map_err(|error| CommandFailure::Refused(format!("the page cannot be made: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
