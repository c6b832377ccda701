//! Results as they are written to JSON, and what is made of them: a report in HTML and a picture.
//!
//! Knows nothing of how they were measured, so that tests can give it results of their own.

mod chart;
mod html;
mod number;
mod picture;
mod run;

pub(crate) use self::{
    html::html,
    number::human,
    picture::picture,
    run::{Machine, Row, Run, SCHEMA, Summary, read},
};
