//! The text of a native filter into [`Rules`].

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::client::{ClientPlace, client};
use super::pattern::{Pattern, syntax};
use super::rule::{Condition, Confidence, Field, Rule, Rules, Sample, Test};
use crate::problem::Problem;
use crate::record::Kind;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    log: Option<Kind>,
    #[serde(default)]
    include: Vec<Spanned<String>>,
    class: Option<String>,
    confidence: Option<Confidence>,
    #[serde(default)]
    spoofable: bool,
    weight: Option<Spanned<u32>>,
    distinct: Option<Spanned<Field>>,
    #[serde(default, rename = "match")]
    matches: Vec<Spanned<Match>>,
    #[serde(default)]
    except: Vec<Spanned<Match>>,
    #[serde(default)]
    clear: Vec<Spanned<Match>>,
    #[serde(default, rename = "client")]
    clients: Vec<Spanned<ClientPlace>>,
}

/// `[[match]]`, `[[except]]` or `[[clear]]`, and what may not hold: `[match.not]`.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table of conditions, as { status = 302 }"
)]
struct Match {
    class: Option<String>,
    confidence: Option<Confidence>,
    spoofable: Option<bool>,
    weight: Option<Spanned<u32>>,
    distinct: Option<Spanned<Field>>,
    #[serde(default)]
    hit: Texts,
    #[serde(default)]
    miss: Texts,
    not: Option<Box<Spanned<Match>>>,

    method: Option<Spanned<Text>>,
    path: Option<Spanned<Text>>,
    query: Option<Spanned<Text>>,
    url: Option<Spanned<Text>>,
    payload: Option<Spanned<Text>>,
    referer: Option<Spanned<Text>>,
    user_agent: Option<Spanned<Text>>,
    user: Option<Spanned<Text>>,
    vhost: Option<Spanned<Text>>,
    protocol: Option<Spanned<Text>>,
    request: Option<Spanned<Text>>,
    module: Option<Spanned<Text>>,
    level: Option<Spanned<Text>>,
    code: Option<Spanned<Text>>,
    message: Option<Spanned<Text>>,
    status: Option<Spanned<Numbers>>,
    bytes: Option<Spanned<Numbers>>,
    port: Option<Spanned<Numbers>>,
}

/// Samples.
#[derive(Default, Deserialize)]
#[serde(try_from = "toml::Value")]
struct Texts(Vec<String>);

impl TryFrom<toml::Value> for Texts {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Texts, &'static str> {
        let texts = match value {
            toml::Value::Array(texts) => texts,
            text => vec![text],
        };
        let texts = texts.into_iter().map(|text| match text {
            toml::Value::String(text) => Ok(text),
            _ => Err("expected a text, or a list of texts"),
        });
        texts.collect::<Result<_, _>>().map(Texts)
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a regex, a list of words, or a table of `regex`, `is`, `prefix`, `suffix`, `contains`"
)]
enum Text {
    Regex(String),
    Is(Vec<String>),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    regex: Option<String>,
    is: Option<Vec<String>>,
    prefix: Option<Vec<String>>,
    suffix: Option<Vec<String>>,
    contains: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, a range as \"400-499\" or \"500-\", or a list of these"
)]
enum Numbers {
    One(u64),
    Range(String),
    List(Vec<Numbers>),
}

/// Reads the text of a native filter; [`Rules::compile`] finds what is wrong with it beyond that.
///
/// # Errors
/// What is wrong, with its line and column.
pub fn read(file: &Path, text: &str) -> Result<Rules, Vec<Problem>> {
    read_text(file, text, |file, reader| {
        if file.matches.is_empty() && file.include.is_empty() && file.clients.is_empty() {
            reader.problem(0..0, "the filter has no `[[match]]` and no `include`");
        }
    })
}

/// Reads the `[[except]]` of a jail, which have no samples.
///
/// # Errors
/// What is wrong, with its line and column.
pub fn excepts(file: &Path, text: &str) -> Result<Rules, Vec<Problem>> {
    let rules = read_text(file, text, |file, reader| {
        for item in &file.except {
            let found = item.get_ref();
            if !(found.hit.0.is_empty() && found.miss.0.is_empty()) {
                reader.problem(
                    item.span(),
                    "only a filter has samples: delete `hit` and `miss`",
                );
            }
        }
    })?;
    rules.compile()?;
    Ok(rules)
}

fn read_text(
    file: &Path,
    text: &str,
    check: impl Fn(&File, &mut Reader<'_>),
) -> Result<Rules, Vec<Problem>> {
    let mut reader = Reader {
        file: file.to_owned(),
        text,
        log: None,
        problems: Vec::new(),
    };
    let parsed: File = match toml::from_str(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let place = error.span().map(|span| reader.place(span));
            let mut message = error.message().trim().replace('\n', ", ");
            if toml::from_str::<toml::Table>(text).is_err() {
                message = format!(
                    "not valid TOML: {message}; texts, and ranges as \"400-499\", need quotes"
                );
            }
            return Err(vec![Problem {
                file: reader.file,
                place,
                message,
            }]);
        }
    };
    check(&parsed, &mut reader);
    let mut rules = Vec::new();
    for (items, table) in [
        (&parsed.matches, "match"),
        (&parsed.clear, "clear"),
        (&parsed.except, "except"),
    ] {
        rules.extend(items.iter().map(|item| reader.rule(&parsed, item, table)));
    }
    let clients = parsed.clients.iter();
    let clients = clients.filter_map(|item| client(&mut reader, parsed.log, item));
    let clients = clients.collect();
    let include = parsed.include.iter();
    let include = include.map(|name| (name.get_ref().clone(), reader.place(name.span())));
    let rules = Rules {
        file: reader.file.clone(),
        log: parsed.log,
        include: include.collect(),
        rules,
        clients,
    };
    if reader.problems.is_empty() {
        Ok(rules)
    } else {
        Err(reader.problems)
    }
}

pub(super) struct Reader<'t> {
    file: PathBuf,
    text: &'t str,
    /// The log that the filter is for.
    log: Option<Kind>,
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Line and column, from 1; columns count characters.
    fn place(&self, span: Range<usize>) -> (usize, usize) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    pub(super) fn problem(&mut self, span: Range<usize>, message: impl Into<String>) {
        let place = (span != (0..0)).then(|| self.place(span));
        self.problems.push(Problem {
            file: self.file.clone(),
            place,
            message: message.into(),
        });
    }

    fn rule(&mut self, file: &File, item: &Spanned<Match>, table: &str) -> Rule {
        let found = item.get_ref();
        let states = found.class.is_some()
            || found.confidence.is_some()
            || found.spoofable.is_some()
            || found.weight.is_some()
            || found.distinct.is_some();
        if table != "match" && states {
            let message = format!("`[[{table}]]` holds conditions and samples only");
            self.problem(item.span(), message);
        }
        let mut conditions = Vec::new();
        self.log = file.log;
        self.conditions(found, false, &mut conditions);
        if let Some(not) = &found.not {
            let inside = not.get_ref();
            let foreign = inside.class.is_some()
                || inside.confidence.is_some()
                || inside.spoofable.is_some()
                || inside.weight.is_some()
                || inside.distinct.is_some()
                || inside.not.is_some()
                || !(inside.hit.0.is_empty() && inside.miss.0.is_empty());
            if foreign {
                self.problem(not.span(), "`not` holds conditions only");
            }
            self.conditions(inside, true, &mut conditions);
        }
        if conditions.iter().all(|condition| condition.negated) {
            let message = format!("`[[{table}]]` needs a condition besides `not`");
            self.problem(item.span(), message);
        }
        // Numbers and words cost least.
        conditions.sort_by_key(|condition| {
            let cheap = matches!(condition.test, Test::Numbers(_));
            (!cheap, condition.field.searched().is_some())
        });
        let stated = found.confidence.or(file.confidence);
        let weight = found.weight.as_ref().or(file.weight.as_ref());
        if let Some(weight) = weight
            && !(1..=1000).contains(weight.get_ref())
        {
            self.problem(weight.span(), "`weight` must be 1 to 1000");
        }
        let distinct = found.distinct.as_ref().or(file.distinct.as_ref());
        if let Some(distinct) = distinct {
            let field = *distinct.get_ref();
            self.has_field(field, distinct.span());
            if matches!(
                field,
                Field::Payload | Field::Status | Field::Bytes | Field::Port
            ) {
                self.problem(
                    distinct.span(),
                    "`distinct` is a field with one text, like `path`",
                );
            }
        }
        let hit = found.hit.0.iter().map(|text| Sample::new(text, true));
        let miss = found.miss.0.iter().map(|text| Sample::new(text, false));
        let class = found.class.as_ref().or(file.class.as_ref());
        Rule {
            place: self.place(item.span()),
            description: self.description(item, class.map_or("", String::as_str)),
            class: class.cloned().unwrap_or_default(),
            confidence: stated.unwrap_or(Confidence::Likely),
            spoofable: found.spoofable.unwrap_or(file.spoofable),
            weight: match weight {
                _ if table == "clear" => 0,
                Some(weight) => *weight.get_ref(),
                None => stated.map_or(1, Confidence::weight),
            },
            distinct: distinct.map(|field| *field.get_ref()),
            excepts: table == "except",
            samples: hit.chain(miss).collect(),
            conditions,
        }
    }

    /// The class, and the first line of conditions as it is in the file.
    fn description(&self, item: &Spanned<Match>, class: &str) -> String {
        let text = self.text.get(item.span().start..).unwrap_or_default();
        let stated = [
            "class",
            "confidence",
            "spoofable",
            "weight",
            "distinct",
            "hit",
            "miss",
            "#",
            "[[",
        ];
        let mut lines = text.lines().map(str::trim);
        let condition =
            lines.find(|line| !line.is_empty() && !stated.iter().any(|key| line.starts_with(key)));
        let condition = condition.unwrap_or_default();
        match class {
            "" => condition.to_owned(),
            class => format!("{class}: {condition}"),
        }
    }

    fn conditions(&mut self, found: &Match, negated: bool, conditions: &mut Vec<Condition>) {
        let texts = [
            (Field::Method, &found.method),
            (Field::Path, &found.path),
            (Field::Query, &found.query),
            (Field::Url, &found.url),
            (Field::Payload, &found.payload),
            (Field::Referer, &found.referer),
            (Field::UserAgent, &found.user_agent),
            (Field::User, &found.user),
            (Field::Vhost, &found.vhost),
            (Field::Protocol, &found.protocol),
            (Field::Request, &found.request),
            (Field::Module, &found.module),
            (Field::Level, &found.level),
            (Field::Code, &found.code),
            (Field::Message, &found.message),
        ];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            self.has_field(field, text.span());
            for pattern in patterns(text.get_ref()) {
                if let Some(pattern) = self.pattern(text.span(), &pattern) {
                    conditions.push(Condition {
                        field,
                        negated,
                        test: Test::Text(pattern),
                    });
                }
            }
        }
        let numbers = [
            (Field::Status, &found.status),
            (Field::Bytes, &found.bytes),
            (Field::Port, &found.port),
        ];
        for (field, numbers) in numbers {
            let Some(numbers) = numbers else { continue };
            self.has_field(field, numbers.span());
            let mut ranges = Vec::new();
            if let Err(message) = add_ranges(numbers.get_ref(), &mut ranges) {
                self.problem(numbers.span(), message);
            }
            conditions.push(Condition {
                field,
                negated,
                test: Test::Numbers(ranges),
            });
        }
    }

    /// Reports a field that the filter's log does not have.
    fn has_field(&mut self, field: Field, span: Range<usize>) {
        if let Some(log) = self.log.filter(|log| !field.is_in(*log)) {
            let field = field.name();
            self.problem(span, format!("an {log} log has no `{field}`"));
        }
    }

    fn pattern(&mut self, span: Range<usize>, text: &str) -> Option<Pattern> {
        let least = match syntax().build().parse(text) {
            Ok(hir) => hir.properties().minimum_len(),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                self.problem(span, format!("the pattern is not valid: {reason}"));
                return None;
            }
        };
        let pattern = Pattern::new(text, self.place(span.clone()));
        // Any field has an empty text in it.
        let everywhere = !text.starts_with('^') && least == Some(0) && pattern.is_match(b"");
        if text.is_empty() || everywhere {
            self.problem(span, "the pattern matches every text");
            return None;
        }
        Some(pattern)
    }
}

/// A condition as regexes, all of which must match.
fn patterns(text: &Text) -> Vec<String> {
    let any = |words: &[String]| {
        let words: Vec<_> = words
            .iter()
            .map(|word| regex_syntax::escape(word))
            .collect();
        format!("(?:{})", words.join("|"))
    };
    match text {
        Text::Regex(pattern) => vec![pattern.clone()],
        Text::Is(words) => vec![format!("^{}$", any(words))],
        Text::Table(table) => {
            let made = [
                table.regex.clone(),
                table.is.as_ref().map(|words| format!("^{}$", any(words))),
                table
                    .prefix
                    .as_ref()
                    .map(|words| format!("^{}", any(words))),
                table
                    .suffix
                    .as_ref()
                    .map(|words| format!("{}$", any(words))),
                table.contains.as_ref().map(|words| any(words)),
            ];
            made.into_iter().flatten().collect()
        }
    }
}

fn add_ranges(numbers: &Numbers, ranges: &mut Vec<(u64, u64)>) -> Result<(), String> {
    match numbers {
        Numbers::One(number) => ranges.push((*number, *number)),
        Numbers::List(list) => {
            for numbers in list {
                add_ranges(numbers, ranges)?;
            }
        }
        Numbers::Range(text) => {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str, default| match text.trim() {
                "" => Ok(default),
                text => text.parse::<u64>(),
            };
            match (number(low, 0), number(high, u64::MAX)) {
                (Ok(low), Ok(high)) if low <= high && text.trim() != "-" => {
                    ranges.push((low, high));
                }
                _ => {
                    let text = text.escape_debug();
                    return Err(format!(
                        "`{text}` is not a range as \"400-499\" or \"500-\""
                    ));
                }
            }
        }
    }
    Ok(())
}
