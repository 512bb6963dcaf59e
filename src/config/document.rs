//! TOML text into values with their places.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Line and column, from 1.
pub(super) type Place = (usize, usize);

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A TOML value, owned.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Located>),
    /// In the order of the file.
    Table(Vec<Member>),
    Date,
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) key: String,
    /// The place of the key; the value has another.
    pub(super) place: Place,
    pub(super) value: Located,
}

impl fmt::Display for Value {
    /// Its kind, for "expected ..., found ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "the text \"{}\"", text.escape_debug()),
            Value::Integer(number) => write!(f, "the number {number}"),
            Value::Float(number) => write!(f, "the number {number:?}"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::List(_) => f.write_str("a list"),
            Value::Table(_) => f.write_str("a table"),
            Value::Date => f.write_str("a date"),
        }
    }
}

/// All values of a file, and all its syntax errors.
pub(super) fn parse(text: &str) -> (Vec<Member>, Vec<(Option<Place>, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let place = error.span().map(|span| place(text, &span));
            (place, error.message().trim().replace('\n', ", "))
        })
        .collect();
    (members(text, table.get_ref()), problems)
}

fn members(text: &str, table: &DeTable<'_>) -> Vec<Member> {
    let mut members: Vec<Member> = table
        .iter()
        .map(|(key, value)| Member {
            key: key.get_ref().to_string(),
            place: place(text, &key.span()),
            value: located(text, value.get_ref(), &value.span()),
        })
        .collect();
    members.sort_by_key(|member| member.place);
    members
}

fn located(text: &str, value: &DeValue<'_>, span: &Range<usize>) -> Located {
    let value = match value {
        DeValue::String(value) => Value::Text(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            // No key accepts a number this large.
            .map_or(Value::Float(f64::MAX), Value::Integer),
        DeValue::Float(value) => Value::Float(value.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| located(text, item.get_ref(), &item.span()))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(members(text, table)),
    };
    Located {
        value,
        place: place(text, span),
    }
}

/// A column counts characters, as editors do.
fn place(text: &str, span: &Range<usize>) -> Place {
    let mut end = span.start.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line_and_column() {
        let (members, problems) =
            parse("a = 1\n[jails.x]\n  maxretry = \"é\" # c\n  list = [1,\n \"b\"]\n");
        assert_eq!(problems, []);
        assert_eq!(
            (
                members[0].key.as_str(),
                members[0].place,
                members[0].value.place
            ),
            ("a", (1, 1), (1, 5))
        );
        let Value::Table(jails) = &members[1].value.value else {
            panic!()
        };
        let Value::Table(x) = &jails[0].value.value else {
            panic!()
        };
        assert_eq!(x[0].place, (3, 3));
        assert_eq!(
            x[0].value,
            Located {
                value: Value::Text("é".into()),
                place: (3, 14)
            }
        );
        let Value::List(list) = &x[1].value.value else {
            panic!()
        };
        assert_eq!(list[1].place, (5, 2));
    }

    #[test]
    fn every_syntax_error_is_reported_not_only_the_first() {
        let (_, problems) = parse("a = \nb = 1\nc = [1\nd = 'x\n");
        let lines: Vec<_> = problems
            .iter()
            .filter_map(|(place, _)| place.map(|p| p.0))
            .collect();
        assert!(
            lines.contains(&1) && lines.iter().any(|line| *line >= 3),
            "{problems:?}"
        );
    }
}
