//! What is expected of a number that a drill's command gives: `>= 10`, `== 3`, `>= previous*0.98`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An expectation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    relation: Relation,
    than: Than,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    More,
    Less,
    Equal,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Than {
    /// A number.
    Number(f64),
    /// So many times what the last drill that went well gave.
    Previous(f64),
}

impl Relation {
    const ALL: [(&'static str, Self); 5] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        ("==", Self::Equal),
        (">", Self::More),
        ("<", Self::Less),
    ];

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::AtLeast => ordering.is_ge(),
            Self::AtMost => ordering.is_le(),
            Self::More => ordering.is_gt(),
            Self::Less => ordering.is_lt(),
            Self::Equal => ordering.is_eq(),
        }
    }
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no expectation like \">= 10\" or \">= previous*0.98\"");
        let known = Relation::ALL.iter().find_map(|(sign, r)| Some((text.trim().strip_prefix(sign)?, *r)));
        let (rest, relation) = known.ok_or_else(wrong)?;
        let than = match rest.trim().strip_prefix("previous") {
            None => finite(rest).map(Than::Number),
            Some("") => Some(Than::Previous(1.0)),
            Some(factor) => factor.trim().strip_prefix('*').and_then(finite).map(Than::Previous),
        };
        Ok(Self { relation, than: than.ok_or_else(wrong)? })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Relation::ALL.iter().find(|(_, r)| *r == self.relation).map_or("", |(sign, _)| sign);
        match self.than {
            Than::Number(n) => write!(f, "{sign} {n}"),
            Than::Previous(1.0) => write!(f, "{sign} previous"),
            Than::Previous(factor) => write!(f, "{sign} previous*{factor}"),
        }
    }
}

impl Expectation {
    /// Why a number is not as expected, with both; nothing if it is, or if there is none before it to compare with.
    pub fn miss(&self, is: &str, before: Option<&str>) -> Option<String> {
        let (than, beside) = match self.than {
            Than::Number(n) => (n, String::new()),
            Than::Previous(factor) => {
                let before = before?;
                (finite(before)? * factor, format!(" (it was {before})"))
            }
        };
        let holds =
            finite(is).is_some_and(|is| is.partial_cmp(&than).is_some_and(|o| self.relation.holds(o)));
        (!holds).then(|| format!("is {is}, and has to be {self}{beside}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_written_and_judged() {
        for (text, is, before, holds) in [
            (">= 10", "10", None, true),
            (">= 10", "9.5", None, false),
            ("<= 3", "3", None, true),
            ("< 3", "3", None, false),
            ("> 3", "4", None, true),
            ("== 3", "3.0", None, true),
            ("== 3", "4", None, false),
            (">= previous*0.98", "98", Some("100"), true),
            (">= previous*0.98", "97", Some("100"), false),
            (">= previous", "1", None, true),
            ("<previous * 2", "199", Some("100"), true),
        ] {
            let expectation: Expectation = text.parse().unwrap();
            assert_eq!(expectation.miss(is, before).is_none(), holds, "{text} {is} {before:?}");
            assert_eq!(expectation.to_string().parse(), Ok(expectation), "{text}");
        }
        let miss = ">= previous*0.98".parse::<Expectation>().unwrap().miss("97", Some("100"));
        assert_eq!(miss.unwrap(), "is 97, and has to be >= previous*0.98 (it was 100)");
        for text in ["", "10", "=> 3", ">= x", ">= NaN", ">= previous+1", ">= previous*", "!= 3"] {
            assert!(text.parse::<Expectation>().unwrap_err().contains("no expectation"), "{text}");
        }
    }
}
