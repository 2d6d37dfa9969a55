//! What `/metrics` answers: OpenMetrics 1.0, or the classic text format 0.0.4 that older scrapers ask for.
//!
//! prometheus-client writes OpenMetrics; the classic text differs in a few lines and is made from it. A scraper
//! that names neither gets the classic text, as Prometheus' own exporters answer.

use prometheus_client::registry::Registry;

/// Content type of OpenMetrics.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the classic text format.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The registry in the format that this `Accept` header prefers, with its content type.
pub(crate) fn encode(registry: &Registry, accept: Option<&str>) -> Result<(&'static str, String), std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(if prefers_openmetrics(accept.unwrap_or_default()) { (OPENMETRICS, text) } else { (CLASSIC, classic(&text)) })
}

/// Whether OpenMetrics has the higher quality value; classic text wins a draw by being listed first.
fn prefers_openmetrics(accept: &str) -> bool {
    let mut best = (0.0, false);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let quality = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse::<f64>().ok()).unwrap_or(1.0);
        let open = media.eq_ignore_ascii_case("application/openmetrics-text");
        if (open || media.starts_with("text/") || media == "*/*") && quality > best.0 {
            best = (quality, open);
        }
    }
    best.1
}

/// OpenMetrics text as classic text:
///
/// | OpenMetrics | classic |
/// |---|---|
/// | `# TYPE x counter`, samples `x_total` | `# TYPE x_total counter` |
/// | `# TYPE x info`, samples `x_info` | `# TYPE x_info gauge` |
/// | `# TYPE x unknown` | `# TYPE x untyped` |
/// | `# UNIT …`, exemplars, `# EOF` | left out |
fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The type stands on the next line and decides the name.
            let kind = lines.peek().and_then(|next| next.rsplit(' ').next()).unwrap_or_default();
            let (name, words) = help.split_once(' ').unwrap_or((help, ""));
            text.push_str(&format!("# HELP {name}{} {words}\n", suffix(kind)));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let word = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                other => other,
            };
            text.push_str(&format!("# TYPE {name}{} {word}\n", suffix(kind)));
        } else {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

/// A sample without its exemplar. ` # {` may also stand inside a label's quotes, so quotes are skipped.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_negotiated() {
        let check = |accept: &str, open: bool| assert_eq!(prefers_openmetrics(accept), open, "{accept}");
        check("", false);
        check("*/*", false);
        check("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", false);
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            true,
        );
        check("application/openmetrics-text;q=0.4,text/plain;q=0.5", false);
    }

    #[test]
    fn classic_text_differs_where_it_must() {
        let open = "# HELP a_events Events.\n# TYPE a_events counter\na_events_total{x=\"1 # {2}\"} 3 # {id=\"7\"} 1.0\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 1.5\n\
                    # HELP build Build.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_events_total Events.\n# TYPE a_events_total counter\na_events_total{x=\"1 # {2}\"} 3\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 1.5\n\
                    # HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(classic(open), text);
    }
}
