//! `ARG` inside of a stage.

use rbuild_parser::ast::Arg;
use rbuild_types::Diagnostic;

use super::environment::{MAX_VALUE, too_long};
use super::stage::{Layer, Origin, StageLowering};

impl StageLowering<'_, '_> {
    /// Lowers `ARG`. Unlike all else, each one on the line sees those before it.
    ///
    /// The value is that of `--build-arg`, then the default, then the global argument of that
    /// name. A default that is not needed is not even looked at.
    pub(super) fn arg(&mut self, args: &[Arg]) -> Result<(), Diagnostic> {
        let mut shown = Vec::new();
        for arg in args {
            let name = self.expand(&arg.name)?;
            let given = self.plan.options.build_args.get(&name);
            let value = match (given, &arg.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.plan.globals.variables.get(&name).map(str::to_owned),
            };
            if let Some(value) = &value {
                if value.len() > MAX_VALUE {
                    return Err(too_long(&name, self.place(arg.name.span)));
                }
                self.state.variables.set(&name, value);
            }
            self.take_arg(arg, &name, value.as_ref());
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            if let Origin::Trigger { .. } = self.origin {
                self.plan.declared.insert(name.clone());
            }
            if value.is_none() {
                self.state.unset.insert(name.clone());
            }
            self.state.args.push((name, value));
        }
        self.history(format!("ARG {}", shown.join(" ")), Layer::Empty)
    }
}
