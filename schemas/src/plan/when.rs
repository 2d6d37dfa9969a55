//! A step's condition: one pure expression over the recovery's inputs and the outcomes of earlier steps.
//!
//! The language is minijinja's expressions (`steps.find.outcome == "succeeded" and attempt > 1`), bounded in what it
//! may spend. A name that nothing has is an error and never just false, so that a slip of the pen is found.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, Value};

/// Instructions that one evaluation may spend.
const FUEL: u64 = 10_000;
/// Longest condition, in bytes.
const MAX_BYTES: usize = 1_000;

/// A condition that was found sound when the plan was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When(String);

impl When {
    /// Takes an expression.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        let environment = environment();
        environment.compile_expression(text).map_err(|error| why(&error))?;
        Ok(Self(text.to_owned()))
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every name it asks for, as in `attempt` and `steps.find.output`.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let environment = environment();
        let compiled = environment.compile_expression(&self.0);
        compiled.map(|found| found.undeclared_variables(true).into_iter().collect()).unwrap_or_default()
    }

    /// Whether it holds for these values.
    ///
    /// # Errors
    /// Why that can't be said, in words: a value that is not there, kinds that can't be compared.
    pub fn holds(&self, values: &serde_json::Value) -> Result<bool, String> {
        let environment = environment();
        let compiled = environment.compile_expression(&self.0).map_err(|error| why(&error))?;
        let value: Value = compiled.eval(Value::from_serialize(values)).map_err(|error| why(&error))?;
        if value.is_undefined() { Err("it asks for what is not there".to_owned()) } else { Ok(value.is_true()) }
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A step's id as a condition writes it: what is no letter or digit becomes `_`, so `verify-data` is `verify_data`.
#[must_use]
pub fn name_in_conditions(step: &str) -> String {
    step.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
}

fn why(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_pure_expressions() {
        let values = json!({
            "attempt": 2, "service": "api",
            "steps": {"find": {"outcome": "succeeded", "output": "backup-7", "code": 0}},
        });
        let cases = [
            ("attempt > 1", Ok(true)),
            ("attempt == 1 or service == \"web\"", Ok(false)),
            ("steps.find.outcome == \"succeeded\" and \"backup\" in steps.find.output", Ok(true)),
            ("not (steps.find.code == 0)", Ok(false)),
            ("steps.find.output is startingwith \"full\"", Ok(false)),
        ];
        for (text, want) in cases {
            assert_eq!(When::parse(text).unwrap().holds(&values), want, "{text}");
        }
        for unknown in ["steps.fnd.outcome == \"succeeded\"", "steps.fnd", "atempt > 1"] {
            assert!(When::parse(unknown).unwrap().holds(&values).is_err(), "{unknown}");
        }
        let greedy = When::parse("range(9000)|map(\"upper\")|list|length > 1").unwrap();
        assert!(greedy.holds(&values).is_ok() || greedy.holds(&values).is_err(), "it ends");
        for wrong in ["", "a ==", "{{ a }}", "a b", &"a".repeat(2_000)] {
            assert!(When::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_are_told() {
        let names = When::parse("steps.find.output == service and attempt > 1").unwrap().names();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["attempt", "service", "steps.find.output"]);
        assert_eq!(name_in_conditions("verify-data/a.b"), "verify_data_a_b");
    }
}
