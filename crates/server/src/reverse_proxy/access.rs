//! The record of a request: one line of the access log, and its share in the metrics, when its answer is complete.
//!
//! Never recorded: the visitor's address, the query (it may hold what is secret), any other field of the request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::ToolName;
use hearth_core::route::Reason;
use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use super::Door;
use super::access_log::Line;
use super::allowances::Pass;
use super::by_tool::{OfTool, Open};

/// The longest host or path that is written whole.
const LONGEST: usize = 1024;

/// What is known of a request while it is answered. It is written when it is dropped.
pub(super) struct Record {
    door: Arc<Door>,
    begun: Instant,
    protocol: &'static str,
    method: Method,
    host: String,
    path: String,
    tool: Option<ToolName>,
    counters: Option<Arc<OfTool>>,
    reason: Option<Reason>,
    status: StatusCode,
    bytes: u64,
    complete: bool,
    passes: Passes,
}

/// What counts for a request as long as it is open.
#[derive(Debug, Default)]
pub(super) struct Passes {
    visitor: Option<Pass<IpAddr>>,
    tool: Option<Pass<ToolName>>,
    open: Option<Open>,
}

impl Record {
    /// The record of a request that begins now. `host` is what the client wrote.
    pub(super) fn new(door: Arc<Door>, method: &Method, version: Version, host: &str, path: &str) -> Self {
        let protocol = match version {
            Version::HTTP_2 => "h2",
            Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        };
        Self {
            door,
            begun: Instant::now(),
            protocol,
            method: method.clone(),
            host: shortened(host),
            path: shortened(path),
            tool: None,
            counters: None,
            reason: None,
            status: StatusCode::OK,
            bytes: 0,
            complete: true,
            passes: Passes::default(),
        }
    }

    /// Whose page it is, where a tool of that name exists.
    pub(super) fn set_tool(&mut self, tool: &ToolName) {
        let counters = self.door.metrics.by_tool.of(tool.as_str());
        self.passes.open = Some(counters.clone().open());
        self.counters = Some(counters);
        self.tool = Some(tool.clone());
    }

    /// What is counted for its tool, or for none.
    pub(super) fn counters(&self) -> Arc<OfTool> {
        self.counters.clone().unwrap_or_else(|| self.door.metrics.by_tool.of(""))
    }

    /// Why a page of the platform is the answer.
    pub(super) fn set_reason(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// The status of the answer.
    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// It counts for its visitor until it is over.
    pub(super) fn hold_visitor(&mut self, pass: Option<Pass<IpAddr>>) {
        self.passes.visitor = pass;
    }

    /// It counts for its tool until it is over.
    pub(super) fn hold_tool(&mut self, pass: Option<Pass<ToolName>>) {
        self.passes.tool = pass;
    }

    /// It goes on as something else, which counts from here on.
    pub(super) fn take_passes(&mut self) -> Passes {
        std::mem::take(&mut self.passes)
    }

    /// A piece of the answer's body is on its way.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The answer ends before its end.
    pub(super) fn cut_off(&mut self) {
        self.complete = false;
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.elapsed();
        let tool = self.tool.as_ref().map_or("", ToolName::as_str);
        self.door.metrics.request(&self.counters(), self.status, elapsed, self.bytes);
        self.door.access_log.write(&Line {
            protocol: self.protocol,
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            tool,
            status: self.status.as_u16(),
            reason: self.reason.map_or("", Reason::as_str),
            bytes: self.bytes,
            complete: self.complete,
            duration: elapsed,
        });
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}
