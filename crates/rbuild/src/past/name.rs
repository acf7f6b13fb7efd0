//! Names of steps, as people write them.

use rbuild_cache::{BuildRecord, BuiltStep, Outcome};

use super::{PastStep, short};

/// Fewer characters of an id say too little.
const SHORTEST_ID: usize = 4;

/// A name, taken apart. What stands before the last `:` may be a stage or a build; which of them is
/// known once builds are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepName {
    /// What stands before the step.
    of: Vec<String>,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// The one that failed.
    Failed,
    /// The last one with a result.
    Last,
    /// By its number in the build, or in a stage.
    Number(usize),
    /// As progress shows it: number and count of its stage.
    Place(usize, usize),
    /// Nothing of this.
    Unknown,
}

/// Whether a text may be the beginning of a build's id.
pub(super) fn is_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (SHORTEST_ID..=64).contains(&text.len()) && text.bytes().all(hex)
}

impl StepName {
    /// Takes a name apart; no text makes this fail.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text.strip_prefix('@').unwrap_or(text);
        let mut of: Vec<String> = text.split(':').map(|part| part.trim().to_owned()).collect();
        let step = of.pop().unwrap_or_default();
        let step = step.strip_prefix('@').unwrap_or(&step);
        let step = step.strip_prefix('[').and_then(|step| step.strip_suffix(']')).unwrap_or(step);
        // `build 3/7` is `build:3/7`, whatever platform stands before the stage.
        let step = match step.rsplit_once(char::is_whitespace) {
            Some((before, step)) => {
                of.extend(before.split_whitespace().next_back().map(str::to_owned));
                step
            }
            None => step,
        };
        let number = |text: &str| text.parse::<usize>().ok();
        let which = match (step, number(step), step.split_once('/')) {
            ("failed", ..) => Which::Failed,
            ("last", ..) => Which::Last,
            (_, Some(wanted), _) => Which::Number(wanted),
            (_, None, Some((wanted, count))) => match (number(wanted), number(count)) {
                (Some(wanted), Some(count)) => Which::Place(wanted, count),
                _ => Which::Unknown,
            },
            _ => Which::Unknown,
        };
        Self { of, which }
    }

    /// The step, of builds that come the newest first; or else what there is.
    pub(super) fn find(&self, builds: &[BuildRecord]) -> Result<PastStep, String> {
        let Some(newest) = builds.first() else {
            return Err("nothing was built in this store yet".to_owned());
        };
        let (build, stage) = match self.of.as_slice() {
            [] => (None, None),
            [one] if newest.has_stage(one) => (None, Some(one)),
            [one] => (Some(one), None),
            [build, stage] => (Some(build), Some(stage)),
            _ => return Err("a name is STEP, STAGE:STEP or BUILD:STAGE:STEP".to_owned()),
        };
        let build = match build {
            Some(id) => one_of(builds, id)?,
            None if self.which == Which::Failed => {
                let failed = builds.iter().find(|build| failed(build).is_some());
                failed.ok_or("no step of the builds that are remembered has failed")?
            }
            None => newest,
        };
        let found = self.of_build(build, stage.map(String::as_str));
        match found.as_slice() {
            [(number, step)] => {
                Ok(PastStep { build: build.clone(), number: *number, step: (*step).clone() })
            }
            [] => {
                let (id, count) = (short(&build.id), build.steps.len());
                Err(format!("`rbuild builds {id}` lists the {count} steps of that build"))
            }
            several => {
                let names = several.iter().take(4).map(|(number, step)| {
                    let name: String = step.name.chars().take(60).collect();
                    format!("{number}: {name}")
                });
                let names: Vec<_> = names.collect();
                Err(format!("it may be one of these, by their numbers: {}", names.join("; ")))
            }
        }
    }

    fn of_build<'a>(
        &self,
        build: &'a BuildRecord,
        stage: Option<&str>,
    ) -> Vec<(usize, &'a BuiltStep)> {
        let is_of =
            |step: &BuiltStep| stage.is_none_or(|stage| step.stage.eq_ignore_ascii_case(stage));
        let of_stage = (1..).zip(&build.steps).filter(|(_, step)| is_of(step));
        match self.which {
            Which::Failed => of_stage.filter(|(_, step)| step.failure.is_some()).take(1).collect(),
            Which::Last => of_stage
                .filter(|(_, step)| matches!(step.outcome, Outcome::Ran | Outcome::Cached))
                .last()
                .into_iter()
                .collect(),
            Which::Number(wanted) if stage.is_none() => {
                of_stage.filter(|(number, _)| *number == wanted).collect()
            }
            Which::Number(wanted) => {
                of_stage.filter(|(_, step)| place(&step.name).0 == Some(wanted)).collect()
            }
            Which::Place(wanted, count) => of_stage
                .filter(|(_, step)| place(&step.name) == (Some(wanted), Some(count)))
                .collect(),
            Which::Unknown => Vec::new(),
        }
    }
}

trait Stages {
    fn has_stage(&self, name: &str) -> bool;
}

impl Stages for BuildRecord {
    fn has_stage(&self, name: &str) -> bool {
        self.steps.iter().any(|step| step.stage.eq_ignore_ascii_case(name))
    }
}

fn failed(build: &BuildRecord) -> Option<&BuiltStep> {
    build.steps.iter().find(|step| step.failure.is_some())
}

fn one_of<'a>(builds: &'a [BuildRecord], id: &str) -> Result<&'a BuildRecord, String> {
    let mut found = builds.iter().filter(|build| is_id(id) && build.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(build), None) => Ok(build),
        (Some(_), Some(_)) => Err(format!("more than one build has an id that begins with {id}")),
        (None, _) => {
            let mut stages: Vec<&str> = Vec::new();
            for step in builds.iter().take(1).flat_map(|build| &build.steps) {
                if !stages.contains(&step.stage.as_str()) {
                    stages.push(&step.stage);
                }
            }
            let stages = stages.join(", ");
            Err(format!(
                "{id:?} is no stage of the last build ({stages}), and no build of `rbuild builds`"
            ))
        }
    }
}

/// Number and count in a step's name: 3 and 7 of `[build 3/7] RUN make`.
fn place(name: &str) -> (Option<usize>, Option<usize>) {
    let inner = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let inner = inner.map_or("", |(inner, _)| inner);
    let place = inner.rsplit_once(' ').map_or(inner, |(_, place)| place);
    match place.split_once('/') {
        Some((number, count)) => (number.parse().ok(), count.parse().ok()),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rbuild_cache::FailedStep;

    use super::*;

    fn step(stage: &str, name: &str, outcome: Outcome) -> BuiltStep {
        let failure = (outcome == Outcome::Failed).then(|| FailedStep {
            message: String::new(),
            code: Some(1),
            snapshot: None,
            inputs: serde_json::Value::Null,
        });
        BuiltStep {
            name: name.to_owned(),
            stage: stage.to_owned(),
            op: "run".to_owned(),
            outcome,
            key: None,
            known: None,
            identity: None,
            reasons: Vec::new(),
            duration_ms: 0,
            snapshot: None,
            log: None,
            inputs: Vec::new(),
            failure,
        }
    }

    fn builds() -> Vec<BuildRecord> {
        let newest = vec![
            step("build", "[build 1/2] FROM a", Outcome::Cached),
            step("build", "[build 2/2] RUN make", Outcome::Ran),
            step("stage-1", "[stage-1 1/2] FROM a", Outcome::Cached),
            step("stage-1", "[stage-1 2/2] RUN x", Outcome::Skipped),
        ];
        let older = vec![
            step("stage-0", "[1/2] FROM a", Outcome::Cached),
            step("stage-0", "[2/2] RUN false", Outcome::Failed),
        ];
        let of = |id: &str, steps| BuildRecord { id: id.to_owned(), steps, ..<_>::default() };
        vec![of("beef1111", newest), of("beef2222", older)]
    }

    fn found(name: &str) -> Result<(String, usize), String> {
        StepName::parse(name).find(&builds()).map(|step| (step.build.id, step.number))
    }

    #[test]
    fn steps_are_found_by_all_their_names() {
        let newest = |number| Ok(("beef1111".to_owned(), number));
        for name in ["2", "@2", "build:2", "@build:2", "build 2/2", "[build 2/2]", "BUILD:2"] {
            assert_eq!(found(name), newest(2), "{name}");
        }
        assert_eq!(found("stage-1:2"), newest(4));
        assert_eq!(found("linux/amd64 build 1/2"), newest(1));
        assert_eq!(found("@last"), newest(3));
        assert_eq!(found("beef1:4"), newest(4));
        assert_eq!(found("beef1:build:2"), newest(2));
        for name in ["@failed", "failed", "beef2:2", "beef2:@failed", "@beef2222:2/2"] {
            assert_eq!(found(name), Ok(("beef2222".to_owned(), 2)), "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let refused = |name| found(name).unwrap_err();
        assert!(refused("9").contains("`rbuild builds beef1111` lists the 4 steps"));
        assert!(refused("2/2").contains("2: [build 2/2] RUN make; 4: [stage-1 2/2]"));
        assert!(refused("nope:2").contains("(build, stage-1)"));
        assert!(refused("beef:2").contains("more than one build"));
        assert!(refused("").contains("lists the 4 steps"));
        assert!(StepName::parse("1").find(&[]).unwrap_err().contains("nothing was built"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_is_refused(text in ".*") {
            let _ = StepName::parse(&text).find(&builds());
        }
    }
}
