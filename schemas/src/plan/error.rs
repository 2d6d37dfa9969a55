//! What is wrong with a plan: every fault with its place and what to write instead.
//!
//! A fault reads `plan.toml:14: service.api.depends_on: "databse" is not a service: did you mean "database"?`, so
//! that an editor can jump to it and a person can mend it without the manual.

use std::fmt;

/// One fault of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// The file as the caller named it.
    pub file: String,
    /// Line in it, from 1.
    pub line: usize,
    /// Where in the plan: `service.api.rto`; empty for a fault of the TOML itself.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty when the message says all there is.
    pub remedy: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Every fault of a plan, by line; never empty. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanErrors(pub Vec<PlanError>);

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}
