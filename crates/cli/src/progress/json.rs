//! One JSON document a line. `version` names the form; fields may be added to it, and a field is
//! only taken away or changed with a new number.

use std::io::Write;
use std::sync::Mutex;

use rbuild::{Event, Progress};
use serde_json::{Map, Value};

use super::{Display, lock};
use crate::human;
use crate::report::ENTER_FAILED;

/// The form of the documents.
const VERSION: u32 = 1;

/// Writes documents.
pub struct Json<W> {
    out: Mutex<W>,
}

impl<W: Write> Json<W> {
    /// A display that writes there.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<W: Write + Send> Progress for Json<W> {
    fn event(&self, event: &Event) {
        let Some(document) = document(event) else { return };
        // One call for the whole line; a reader that went away does not stop the build.
        let _ = lock(&self.out).write_all(format!("{document}\n").as_bytes());
    }
}

impl<W: Write + Send> Display for Json<W> {
    fn close(&self) {}
}

fn document(event: &Event) -> Option<Value> {
    let mut fields = Map::new();
    fields.insert("version".to_owned(), VERSION.into());
    fields.insert("time".to_owned(), human::rfc3339(human::now()).into());
    let Ok(Value::Object(own)) = serde_json::to_value(event) else { return None };
    fields.extend(own);
    if let Event::StepOutput { bytes, .. } = event {
        // Text rather than a list of numbers; what is no UTF-8 is replaced.
        fields.remove("bytes");
        fields.insert("data".to_owned(), String::from_utf8_lossy(bytes).into());
    }
    if let Event::StepFailed { kept: true, .. } = event {
        fields.insert("enter".to_owned(), ENTER_FAILED.into());
    }
    if let Event::StepFinished { duration, .. } = event {
        fields.remove("duration");
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        fields.insert("ms".to_owned(), millis.into());
    }
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rbuild::{Span, StepId, Stream};

    use super::*;

    #[test]
    fn every_line_is_a_versioned_document() {
        let json = Json::new(Vec::new());
        let step = StepId(3);
        json.event(&Event::StepQueued { step, name: "x".into(), span: Some(Span::new(1, 2)) });
        json.event(&Event::StepOutput { step, stream: Stream::Stderr, bytes: b"a\n\xff".to_vec() });
        json.event(&Event::StepFinished { step, duration: Duration::from_millis(7) });
        let text = String::from_utf8(json.out.into_inner().unwrap()).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line["version"] == 1 && line["step"] == 3));
        assert_eq!(lines[0]["event"], "step-queued");
        assert_eq!(lines[1]["data"], "a\n\u{fffd}");
        assert_eq!(lines[2]["ms"], 7);
    }
}
