//! `WORKDIR`.

use rbuild_parser::ast::{Instruction, Text};
use rbuild_parser::lint::rules::WORKDIR_RELATIVE_PATH;
use rbuild_types::Diagnostic;

use super::path;
use super::stage::{Layer, StageLowering};
use crate::op::{Mkdir, Op};

impl StageLowering<'_, '_> {
    /// Lowers `WORKDIR`: the directory is made at once, by the current user.
    ///
    /// An absolute path is kept in the config as it was written, as BuildKit does.
    pub(super) fn workdir(
        &mut self,
        instruction: &Instruction,
        text: &Text,
    ) -> Result<(), Diagnostic> {
        let wanted = self.expand(text)?;
        let wanted = self.with_slashes(wanted, text.span)?;
        let is_absolute = wanted.starts_with('/');
        if !is_absolute && !wanted.is_empty() && !self.state.workdir_set {
            let message = format!(
                "Relative workdir {wanted:?} can have unexpected results if the base image changes"
            );
            let span = self.place(text.span);
            self.plan.warnings.push(WORKDIR_RELATIVE_PATH.warning(span, message));
        }
        self.state.workdir_set = true;
        // What expands to nothing stays where it is.
        let kept = match is_absolute {
            true => wanted,
            false => path::join(&self.state.directory(), &wanted),
        };
        let system = &self.state.platform.os;
        self.state.config.config.working_dir = path::for_system(kept.clone(), system);
        // The root is always there: the one WORKDIR without a layer.
        let layer = if kept == "/" { Layer::Empty } else { Layer::Filled };
        if layer == Layer::Filled {
            let inputs = self.inputs();
            let op = Op::Mkdir(Mkdir {
                has_root: inputs.has_root,
                path: path::clean(&kept),
                user: self.state.config.config.user.clone(),
                created: self.plan.source_date_epoch,
                latest: self.latest(false),
            });
            self.change_root(instruction, op, inputs);
        }
        self.history(format!("WORKDIR {kept}"), layer)
    }
}
