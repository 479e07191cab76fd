//! How far a template is: a bar or a spinner on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use templates::build::Event;

/// Vanishes when dropped.
pub(super) struct Bar {
    bar: ProgressBar,
    /// Builders' lines are shown in full only where nobody looks at a terminal.
    quiet: bool,
}

impl Bar {
    pub(super) fn new(label: &str, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            // Draws nothing when stderr is no terminal.
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        };
        bar.set_message(label.to_owned());
        style(&bar, "{spinner} {msg} {elapsed}");
        Self { bar, quiet }
    }

    pub(super) fn show(&self, event: Event<'_>) {
        match event {
            Event::Line(line) => {
                let line: String = line.trim().chars().filter(|c| !c.is_control()).collect();
                if self.bar.is_hidden() {
                    if !self.quiet && line.starts_with("I: ") && !line.contains("-hook") {
                        eprintln!("{line}");
                    }
                } else {
                    self.bar.set_message(line);
                    self.bar.tick();
                }
            }
            Event::Progress(progress) if progress.total > 0 => {
                if self.bar.length() != Some(progress.total) {
                    self.bar.set_length(progress.total);
                    style(&self.bar, "{msg} [{bar:30}] {percent}% {eta}");
                }
                self.bar.set_position(progress.read);
            }
            Event::Progress(progress) => {
                style(&self.bar, "{spinner} {msg} {bytes} {bytes_per_sec}");
                self.bar.set_position(progress.unpacked);
            }
        }
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
