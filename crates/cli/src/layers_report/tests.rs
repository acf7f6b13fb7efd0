use rbuild::{Fate, PathVersion};

use super::escape::{in_page, in_script};
use super::{TEMPLATE, files};

const HOSTILE: &str = "</script><!--<script>\"'&{{data}}\u{202e}\u{2028}\u{1b}[31m\0";

#[test]
fn text_of_strangers_is_text() {
    assert_eq!(in_page("<b a='1' c=\"2\">&"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;");
    let page = in_page(HOSTILE);
    assert!(!page.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}', '\0']), "{page:?}");
}

#[test]
fn data_does_not_end_the_script_and_says_what_it_said() {
    let json = serde_json::json!({ "path": HOSTILE }).to_string();
    let escaped = in_script(&json);
    assert!(!escaped.contains(['<', '>', '&', '\u{202e}', '\u{2028}']), "{escaped:?}");
    let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
    assert_eq!(read["path"], HOSTILE);
}

#[test]
fn the_page_names_no_other_place() {
    for forbidden in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch("] {
        assert!(!TEMPLATE.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn however_many_files_there_are_the_rows_stay_few() {
    // The longest names, and all of them letters that take six bytes.
    let long = "\u{1}".repeat(200);
    for name in ["file", long.as_str()] {
        let paths: Vec<String> =
            (0..60_000).map(|file| format!("{}/{}/{name}{file}", file % 7, file % 5_000)).collect();
        let versions = paths.iter().enumerate().map(|(index, path)| PathVersion {
            path: path.as_bytes(),
            layer: index % 90,
            size: index as u64,
            is_change: false,
            fate: if index % 3 == 0 { Fate::Removed(99) } else { Fate::Kept },
        });
        let rows = files::rows(versions);
        let text = serde_json::to_string(&rows).unwrap();
        assert!(text.len() < 1_400_000, "{}", text.len());
        let sum =
            |field: usize| -> u64 { rows.iter().map(|row| row[field].as_u64().unwrap()).sum() };
        assert_eq!(sum(1), (0..60_000).sum::<u64>());
        assert_eq!(sum(4), 59_999, "the empty one is left out");
        assert_eq!(rows[0][1], 59_999, "the largest has its name");
    }
}
