//! Whether the conditions of a rule hold.

use super::fields::{Fields, resolved};
use super::rule::{Condition, Field, Rule, Test};
use super::scratch::Scratch;
use super::target::{before_protocol, is_in_query_language, without_free_text};
use crate::record::Record;

/// Parameters of a request that `not` looks at one by one: each takes a microsecond. Those behind them
/// are not spared.
const MOST_PARAMETERS: usize = 200;

/// The class of rules about what no visitor types into a search.
const NEVER_TYPED: &str = "shellshock";

/// Classes of rules about query languages.
const SQL_CLASSES: [&str; 2] = ["sql-injection", "nosql-injection"];

impl Condition {
    /// Whether it holds as one of the conditions of `rule`.
    pub(super) fn holds(&self, rule: &Rule, fields: &Fields<'_>) -> bool {
        let spares = self.negated || rule.excepts;
        let holds = match &self.test {
            Test::Numbers(ranges) => fields.number(self.field).is_some_and(|number| {
                let mut ranges = ranges.iter();
                ranges.any(|(low, high)| (*low..=*high).contains(&number))
            }),
            // So `/wiki/../.env` is not spared with the pages of a wiki.
            Test::Text(regex) if spares && self.field == Field::Path => {
                let is_about_path = rule.is_about_path();
                fields.whole().any(self.field, |path| {
                    let path = resolved(path);
                    regex.is_match(match is_about_path {
                        true => &path,
                        false => without_path_info(&path),
                    })
                })
            }
            Test::Text(regex) if spares => {
                let fields = fields.whole();
                fields.any(self.field, |text| regex.is_match(text))
            }
            Test::Text(regex) => fields.any(self.field, |text| regex.is_match(text)),
        };
        holds != self.negated
    }
}

/// A path up to the script that runs: what is behind it is any text of the client's.
fn without_path_info(path: &[u8]) -> &[u8] {
    const SCRIPTS: [&[u8]; 9] = [
        b".php", b".php5", b".phtml", b".cgi", b".fcgi", b".pl", b".py", b".rb", b".lua",
    ];
    let is_script = |end: &usize| {
        let before = path.get(..*end).unwrap_or_default();
        let mut scripts = SCRIPTS.iter();
        scripts.any(|suffix| {
            let at = before.len().checked_sub(suffix.len());
            at.and_then(|at| before.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        })
    };
    let end = memchr::memchr_iter(b'/', path).find(is_script);
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

impl Rule {
    /// Whether all conditions hold. Where the rule looks at parameters, its `not` on these takes
    /// out those that it matches, so that one parameter does not spare another; and a rule about SQL
    /// does not see what is in a query language by design.
    pub(super) fn holds(&self, record: &Record<'_>, fields: &Fields<'_>) -> bool {
        let has_parts = record.message.is_none();
        let spares =
            |condition: &Condition| has_parts && condition.negated && self.spares(condition);
        let others = |fields: &Fields<'_>| {
            let mut conditions = self.conditions.iter();
            conditions.all(|condition| spares(condition) || condition.holds(self, fields))
        };
        let matches = |fields: &Fields<'_>| {
            let mut conditions = self.conditions.iter();
            conditions.any(|condition| spares(condition) && !condition.holds(self, fields))
        };
        if !others(fields) {
            return false;
        }
        let is_about_sql = has_parts && SQL_CLASSES.contains(&self.class.as_str());
        if !is_about_sql && !self.conditions.iter().any(spares) {
            return true;
        }
        let mut request = Vec::new();
        let in_sql = |parameter: &[u8]| is_about_sql && is_in_query_language(parameter);
        let rest = without_parts(record, &mut request, in_sql, |part| {
            with_fields(part, matches)
        });
        with_fields(&rest, others)
    }

    /// Whether it is about the path: where a script is in it, the script gets what follows as text.
    fn is_about_path(&self) -> bool {
        self.conditions.iter().any(|condition| {
            let holds_path = matches!(
                condition.field,
                Field::Path | Field::Url | Field::Payload | Field::Request
            );
            holds_path && !condition.negated
        })
    }

    /// Whether a condition looks at parameters, and a condition besides `not` does.
    fn spares(&self, condition: &Condition) -> bool {
        let mut others = self.conditions.iter().filter(|other| !other.negated);
        condition.field.has_parameters() && others.any(|other| other.field.has_parameters())
    }
}

fn with_fields<T>(record: &Record<'_>, read: impl FnOnce(&Fields<'_>) -> T) -> T {
    let mut scratch = Scratch::default();
    let (buffers, ..) = scratch.parts(0);
    read(&Fields::of(record, buffers))
}

/// The record without each part that `takes`, which sees it alone: a parameter, the path, the user
/// agent, the referrer, the user; and without each parameter `in_sql`. Of the parameters, up to
/// [`MOST_PARAMETERS`].
fn without_parts<'a>(
    record: &Record<'a>,
    request: &'a mut Vec<u8>,
    in_sql: impl Fn(&[u8]) -> bool,
    takes: impl Fn(&Record<'_>) -> bool,
) -> Record<'a> {
    let nothing = Record {
        request: None,
        agent: None,
        referer: None,
        user: None,
        ..record.clone()
    };
    let mut rest = record.clone();
    let none = || nothing.clone();
    let agent = record.agent;
    rest.agent = agent.filter(|_| !takes(&Record { agent, ..none() }));
    let referer = record.referer;
    rest.referer = referer.filter(|_| !takes(&Record { referer, ..none() }));
    let user = record.user;
    rest.user = user.filter(|_| !takes(&Record { user, ..none() }));
    let Some(line) = record.request else {
        return rest;
    };
    let takes = |text: &[u8]| {
        let request = Some(text);
        takes(&Record { request, ..none() })
    };
    let end = before_protocol(line).unwrap_or(line.len());
    let (target, protocol) = line.split_at_checked(end).unwrap_or_default();
    let query = memchr::memchr(b'?', target).unwrap_or(end);
    let (path, query) = target.split_at_checked(query).unwrap_or_default();
    if takes(path) {
        let method = memchr::memchr(b' ', path).unwrap_or_default();
        request.extend_from_slice(path.get(..method).unwrap_or_default());
        request.extend_from_slice(b" /");
    } else {
        request.extend_from_slice(path);
    }
    let mut before = b'?';
    let parameters = query.get(1..).unwrap_or_default();
    for (number, parameter) in (0..).zip(parameters.split(|byte| *byte == b'&')) {
        let is_taken = || in_sql(parameter) || takes(&[b"GET ?", parameter].concat());
        if number >= MOST_PARAMETERS || !is_taken() {
            request.push(std::mem::replace(&mut before, b'&'));
            request.extend_from_slice(parameter);
        }
    }
    request.extend_from_slice(protocol);
    rest.request = Some(request);
    rest
}

/// Whether the rule misses once the values of search parameters are taken out.
pub(super) fn rests_on_free_text(rule: &Rule, record: &Record<'_>) -> bool {
    if rule.class == NEVER_TYPED {
        return false;
    }
    let Some(request) = record.request.and_then(without_free_text) else {
        return false;
    };
    let stripped = Record {
        request: Some(&request),
        ..record.clone()
    };
    let mut scratch = Scratch::default();
    let (buffers, ..) = scratch.parts(0);
    let mut fields = Fields::of(&stripped, buffers);
    // A condition on the raw request is about what no form sends.
    fields.request = record.request.unwrap_or_default();
    !rule.holds(&stripped, &fields)
}
