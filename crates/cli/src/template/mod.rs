//! The part of Go's templates that `--format` is written in: fields, `range`, `if`, `with`,
//! variables, pipelines, and the functions of Docker's command line; and `json` alone for one
//! document a row. Nested templates (`define`, `block`) are left out.
//!
//! Differences that come from documents being JSON: a field that is not set shows as nothing
//! instead of `<no value>`, and maps are in the order of their keys, always.

mod action;
mod eval;
mod functions;
mod parse;

use serde_json::Value;

use crate::failure::Failure;

use parse::Node;

/// A parsed `--format`.
#[derive(Debug)]
pub struct Template(Kind);

#[derive(Debug)]
enum Kind {
    /// The whole row as JSON.
    Json,
    Nodes(Vec<Node>),
}

impl Template {
    /// Reads a template; what is beyond the subset is an error that says so.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "json" => Ok(Self(Kind::Json)),
            text => Ok(Self(Kind::Nodes(parse::parse(text).map_err(refuse)?))),
        }
    }

    /// Fills in one row. A field that the row does not have is an error that lists those it has.
    pub fn render(&self, row: &Value) -> Result<String, Failure> {
        match &self.0 {
            Kind::Json => Ok(row.to_string()),
            Kind::Nodes(nodes) => eval::render(nodes, row, eval::Mode::Values).map_err(refuse),
        }
    }

    /// Fills in titles of columns, which functions such as `json` and `lower` leave as they are.
    pub fn render_titles(&self, titles: &Value) -> Result<String, Failure> {
        match &self.0 {
            Kind::Json => Ok(String::new()),
            Kind::Nodes(nodes) => eval::render(nodes, titles, eval::Mode::Titles).map_err(refuse),
        }
    }
}

/// What is wrong with a template, and a way out.
#[derive(Debug, PartialEq)]
struct Mistake {
    message: String,
    hint: Option<String>,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }
}

fn refuse(mistake: Mistake) -> Failure {
    let message = format!("--format: {}", mistake.message);
    match mistake.hint {
        Some(hint) => Failure::usage_hint(message, hint),
        None => Failure::usage(message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, Failure> {
        let row = json!({
            "Id": "sha256:1",
            "Size": 12,
            "Tags": ["a:1", "b:2"],
            "None": null,
            "Config": { "Cmd": ["a", "b"], "Labels": {"k": "v", "x.y": "z"} },
        });
        Template::parse(template)?.render(&row)
    }

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (template, expected) in cases {
            assert_eq!(render(template).unwrap(), *expected, "{template}");
        }
    }

    #[test]
    fn fields_paths_and_json() {
        check(&[
            ("{{.Id}}", "sha256:1"),
            (r"id={{ .Id }}\t{{.Config.Cmd}}!", "id=sha256:1\t[a b]!"),
            ("{{json .Config.Cmd}}", r#"["a","b"]"#),
            ("{{.Config.Labels}}", "map[k:v x.y:z]"),
            ("{{.Config.User}}", ""),
            ("{{json .Config.User}}", "null"),
            ("{{$.Id}} {{.Size}}", "sha256:1 12"),
            ("a}}b", "a}}b"),
        ]);
        assert!(render("{{json .}}").unwrap().starts_with('{'));
        assert!(render("json").unwrap().starts_with('{'));
    }

    #[test]
    fn functions() {
        check(&[
            (r#"{{index .Config.Labels "x.y"}}"#, "z"),
            (r#"{{index .Config.Labels "nope"}}"#, ""),
            ("{{index .Tags 1}}", "b:2"),
            (r#"{{index .Config "Cmd" 0}}"#, "a"),
            ("{{len .Tags}} {{len .Id}} {{len .None}}", "2 8 0"),
            (r#"{{join .Tags ", "}}"#, "a:1, b:2"),
            (r#"{{index (split .Id ":") 1}}"#, "1"),
            ("{{println .Id .Size}}", "sha256:1 12\n"),
            ("{{print 1 2 .Id 3}}", "1 2sha256:13"),
            (
                r#"{{printf "%s=%d|%-4s|%4v|%q%%" .Id .Size "x" true "y\t"}}"#,
                "sha256:1=12|x   |true|\"y\\t\"%",
            ),
            ("{{upper .Id}} {{lower `ABC`}} {{title \"abc\"}}", "SHA256:1 abc Abc"),
            ("{{truncate .Id 3}}{{pad `x` 1 2}}{{slice .Id 1 3}}", "sha x  ha"),
            ("{{slice .Tags 1}}", "[b:2]"),
            ("{{eq .Size 12}} {{ne .Id `x`}} {{lt 1 2}} {{ge `a` `b`}}", "true true true false"),
            ("{{eq .Id 1 `sha256:1`}}", "true"),
            ("{{and 1 .None}}{{or .None `x`}} {{not .None}}", "x true"),
        ]);
    }

    #[test]
    fn pipelines_give_their_value_to_the_last_place() {
        check(&[
            ("{{.Id | upper | json}}", "\"SHA256:1\""),
            ("{{.Size | printf `%s %v` .Id}}", "sha256:1 12"),
            ("{{(index .Tags 0) | len}}", "3"),
            ("{{(index .Config.Labels `k`)}}", "v"),
        ]);
    }

    #[test]
    fn blocks() {
        check(&[
            ("{{range .Tags}}[{{.}}]{{end}}", "[a:1][b:2]"),
            ("{{range $i, $t := .Tags}}{{if $i}},{{end}}{{$t}}{{end}}", "a:1,b:2"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "k=v;x.y=z;"),
            ("{{range $t := .Tags}}{{$t}}{{.}}{{end}}", "a:1a:1b:2b:2"),
            ("{{range .None}}x{{else}}empty{{end}}", "empty"),
            ("{{range .Tags}}{{println .}}{{end}}", "a:1\nb:2\n"),
            ("{{range .Tags}}{{$.Size}}{{end}}", "1212"),
            ("{{range .Tags}}{{.}}{{break}}{{end}}", "a:1"),
            ("{{range .Tags}}{{if eq . `a:1`}}{{continue}}{{end}}{{.}}{{end}}", "b:2"),
            ("{{if .None}}a{{else if .Size}}b{{else}}c{{end}}", "b"),
            ("{{if and .Id (gt .Size 20)}}big{{else}}small{{end}}", "small"),
            ("{{with .Config}}{{len .Cmd}}{{end}}{{with .None}}x{{else}}-{{end}}", "2-"),
            ("{{with $c := .Config}}{{$c.Cmd}}{{end}}", "[a b]"),
            ("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{end}}{{$x}}", "2"),
            ("a {{- /* note */ -}}  b  {{- .Size -}} c", "ab12c"),
        ]);
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in [
            "{{range .X}}{{end}}",
            "{{range .Tags}}",
            "{{end}}",
            "{{else}}",
            "{{if}}x{{end}}",
            "{{if .Id}}{{else}}{{else}}{{end}}",
            "{{.Id",
            "{{Id}}",
            "{{.a..b}}",
            "{{.Id.}}",
            "{{.Nope}}",
            "{{.Id.Nope}}",
            "{{}}",
            "{{$nope}}",
            "{{$x = 1}}",
            "{{range .Tags}}{{end}}{{break}}",
            "{{index .Tags 7}}",
            "{{index .Tags -1}}",
            "{{index .Tags `a`}}",
            "{{index}}",
            "{{index .Id 0}}",
            "{{len .Size}}",
            "{{join .Id}}",
            "{{lt .Id 1}}",
            "{{.Id .Size}}",
            "{{(.Id}}",
            "{{.Id)}}",
            "{{.Id | }}",
            "{{| .Id}}",
            "{{.Id | .Size}}",
            "{{\"open}}",
            "{{define `x`}}{{end}}",
            "{{printf `%s`}}",
            "{{printf `%`}}",
            "{{printf `%y` 1}}",
            "{{printf `%999999999999d` 1}}",
            "{{pad `x` 99999999999 1}}",
            "{{slice .Id 3 1}}",
            "{{slice `é` 1}}",
            "{{truncate .Id -1}}",
            "{{/* open",
        ] {
            assert!(render(bad).is_err(), "{bad}: {:?}", render(bad));
        }
        assert!(render(&"{{if 1}}".repeat(10_000)).is_err());
        assert!(render(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    }

    #[test]
    fn a_missing_field_names_those_that_are_there() {
        match render("{{.Nope}}") {
            Err(Failure::Usage { message, hints }) => {
                assert_eq!(message, "--format: no field \"Nope\"");
                assert_eq!(hints, ["there are Config, Id, None, Size, Tags"]);
            }
            other => panic!("{other:?}"),
        }
    }

    proptest::proptest! {
        #[test]
        fn no_template_panics(
            words in r#"(\{\{|\}\}| -|- |\.|\$|\(|\)|\||[a-z0-9A-Z"`%\\é,:= ]|range |if |end|else |index |printf |slice |Tags|Id|/\*|\*/){0,30}"#,
        ) {
            let _ = render(&words);
            let _ = render(&format!("{{{{{words}}}}}"));
        }
    }

    #[test]
    fn titles_pass_through_functions() {
        let titles = json!({ "Id": "IMAGE ID", "Size": "SIZE" });
        let template = Template::parse("{{lower .Id}}\t{{json .Size}}{{join .Id `,`}}").unwrap();
        assert_eq!(template.render_titles(&titles).unwrap(), "IMAGE ID\tSIZEIMAGE ID");
    }
}
