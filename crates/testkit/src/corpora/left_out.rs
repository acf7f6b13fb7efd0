//! The rows that no test can hold rbuild to, and why. [`super::Table::check`] fails when a row
//! that is listed here is not there, or is not different after all.

/// Some rows of one table.
#[derive(Debug)]
pub struct LeftOut {
    /// As [`super::Table`] names it: `corpus: function name`.
    pub table: &'static str,
    /// Part of the row's JSON text.
    pub row: &'static str,
    /// How many rows hold it.
    pub rows: usize,
    /// Why they are left out.
    pub why: Why,
}

/// Why a row is left out.
#[derive(Debug)]
pub enum Why {
    /// It cannot be asked: what it is about was lost on the way into the table, or is the other
    /// tool's own.
    Unusable(&'static str),
    /// rbuild differs on purpose.
    Differs(&'static str),
}

impl Why {
    /// The reason.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Unusable(text) | Self::Differs(text) => text,
        }
    }
}

const fn unusable(
    table: &'static str,
    row: &'static str,
    rows: usize,
    why: &'static str,
) -> LeftOut {
    LeftOut { table, row, rows, why: Why::Unusable(why) }
}

const fn differs(
    table: &'static str,
    row: &'static str,
    rows: usize,
    why: &'static str,
) -> LeftOut {
    LeftOut { table, row, rows, why: Why::Differs(why) }
}

/// All of them.
pub const LEFT_OUT: &[LeftOut] = &[
    unusable("buildkit: envVarTest", "[\"W\",", 2, "what Windows does"),
    unusable(
        "buildkit: TestHeredocsFromLine srcs",
        "RUN <<- EOF",
        1,
        "BuildKit's test compares what it finds, and finds nothing here: a line is split at blanks",
    ),
    unusable(
        "buildkit: TestParseHeredocHelpers validHeredocs",
        "<<- EOF",
        1,
        "one word with a blank after the dash, which no line has",
    ),
    unusable(
        "buildkit: TestParseHeredocHelpers notHeredocs",
        "<<EOF sh",
        1,
        "one word with a blank, which no line has; the line `RUN <<EOF sh` has a here-document",
    ),
    unusable(
        "Dockerfiles of buildkit/parser/testfiles",
        "/flags/Dockerfile",
        1,
        "flags that no instruction has: the parser of lines takes any, and so does its dumper",
    ),
    unusable(
        "Dockerfiles of buildkit/parser/testfiles",
        "/health/Dockerfile",
        1,
        "health checks that are none: the parser of lines takes any, and so does its dumper",
    ),
    differs(
        "moby: TestGitInvalidRef gitUrls",
        "git@github.com/moby/moby#--upload-pack=sleep;:",
        1,
        "no colon behind the host: as in BuildKit it is a local path, and no git is asked",
    ),
    differs(
        "moby: TestNormalizeWorkdir testCases",
        "cannot normalize nothing",
        1,
        "as in BuildKit `WORKDIR` with nothing stays where it is",
    ),
    unusable("moby: TestNormalizeWorkdir tests", "[\"windows\"", 15, "what Windows does"),
    unusable(
        "moby: TestNormalizeWorkdir tests",
        "\"\\\\a\"",
        1,
        "what a builder that runs on Windows makes of backslashes",
    ),
    differs(
        "moby: TestNormalizeWorkdir tests",
        "[\"linux\",\"\",\"\",\"\",",
        1,
        "as in BuildKit `WORKDIR` with nothing stays where it is",
    ),
    unusable("buildkit: TestParsePortEmptyContainerPort tests", "empty spec", 1, NO_EMPTY_WORD),
    unusable("moby: TestParsePortSpecEmptyContainerPort tests", "empty spec", 1, NO_EMPTY_WORD),
    unusable("moby: TestSplitProtoPort tests", "empty value", 1, NO_EMPTY_WORD),
    unusable("buildkit: lint tests", "\"testUndeclaredArg 7\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUndeclaredArg 8\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUnmatchedVars 1\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUnmatchedVars 2\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUnmatchedVars 3\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUnmatchedVars 4\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testUnmatchedVars 5\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testInvalidDefaultArgInFrom 0\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testInvalidDefaultArgInFrom 3\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testBaseImagePlatformMismatch 0\"", 1, LOST_TEXT),
    unusable("buildkit: lint tests", "\"testBaseImagePlatformMismatch 1\"", 1, LOST_TEXT),
    unusable(
        "buildkit: lint-docs",
        "\"rule\":\"CopyIgnoredFile\"",
        2,
        "the ignore file is not shown",
    ),
    differs(
        "buildkit: lint-docs",
        "ARG foo bar",
        1,
        "the page says one thing and BuildKit's code does another: these are two arguments",
    ),
    differs(
        "buildkit: lint-docs",
        "# a non-descriptive comment\\n\\n",
        1,
        "as above: an empty line below a comment does not part it from the instruction",
    ),
];

const NO_EMPTY_WORD: &str = "no `EXPOSE` has an empty word: expansion leaves none, as in BuildKit";

const LOST_TEXT: &str = "what made the Dockerfile (a format, a base image, a platform of the \
                         moment) is lost in the table";
