//! `MaintainerDeprecated`.

use rbuild_types::Diagnostic;

use super::rules::MAINTAINER_DEPRECATED;
use crate::ast::{Dockerfile, InstructionKind};

pub(super) fn check(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let found = instructions.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Maintainer { name } => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            let label = format!("LABEL org.opencontainers.image.authors={:?}", name.value.as_str());
            let warning = MAINTAINER_DEPRECATED.warning(instruction.keyword.span, message);
            Some(warning.help(format!("write `{label}`")))
        }
        _ => None,
    });
    found.collect()
}
