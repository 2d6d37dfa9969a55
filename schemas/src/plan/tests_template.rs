//! What templates can say, what they can't, and where they end.

use super::*;

fn render(text: &str, escape: Escape) -> Result<String, String> {
    let template = Template::parse(text).map_err(|error| error.to_string())?;
    let sample = &mut Variables::samples()[0];
    sample.changes[0].reason = "<!channel> \"x\" & *y*".to_owned();
    template.render(escape, &sample.values()).map_err(|error| error.to_string())
}

#[test]
fn variables_are_written_and_escaped_for_their_place() {
    let cases = [
        ("{{ service }} at {{ site }}: {{ count }}", Escape::Plain, "database at primary: 1"),
        ("{{ reason }}", Escape::Plain, "<!channel> \"x\" & *y*"),
        (
            "<https://wiki/{{ service }}|Wiki> {{ reason }}",
            Escape::Slack,
            "<https://wiki/database|Wiki> &lt;!channel&gt; \"x\" &amp; *y*",
        ),
        ("**{{ reason }}**", Escape::Card, r#"**\<!channel\> "x" & \*y\***"#),
        ("<b>{{ reason }}</b>", Escape::Html, "<b>&lt;!channel&gt; &quot;x&quot; &amp; *y*</b>"),
        ("{\"text\": {{ reason }}, \"n\": {{ count }}}", Escape::Json, r#"{"text": "<!channel> \"x\" & *y*", "n": 1}"#),
        (
            "{{ service|upper }}{% if condition %} warns{% else %} failed{% endif %}\n\n",
            Escape::Plain,
            "DATABASE failed",
        ),
        (
            "{% for c in changes %}{{ loop.index }}. {{ c.service }} {{ c.reason|shorten(4) }}{% endfor %}",
            Escape::Plain,
            "1. database <!c…",
        ),
        ("{{ changes|map(attribute=\"service\")|unique|join(\", \") }}", Escape::Plain, "database"),
        ("{{ \"2 * 2\" }} {{ transition }}", Escape::Plain, "2 * 2 raised"),
    ];
    for (text, escape, want) in cases {
        assert_eq!(render(text, escape).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let long = "x".repeat(MAX_BYTES + 1);
    let statements = "there are if, elif, else, endif, for, endfor";
    let cases = [
        ("a\n{{ servce }}", "line 2: a name that nothing has"),
        ("{{ changes[7].service }}", "line 1: a name that nothing has"),
        ("a\nb\n{{ service", "line 3: "),
        ("{% if x %}", "line 1: "),
        ("{{ service|frobnicate }}", "line 1: filter frobnicate is unknown"),
        ("{{ env(\"PATH\") }}", "line 1: "),
        ("{% set a = 1 %}", &format!("line 1: \"set\" is nothing that a message's template can say: {statements}")),
        (
            "\n{%- include \"/etc/passwd\" %}",
            &format!("line 2: \"include\" is nothing that a message's template can say: {statements}"),
        ),
        ("{% autoescape false %}{% endautoescape %}", "line 1: \"autoescape\" is nothing"),
        ("{% for c in changes recursive %}{% endfor %}", "line 1: a loop of a message's template can't be recursive"),
        ("{{ \"x\" * 100000000 }}", "line 1: a message's template can't multiply"),
        ("{{ reason|safe }}", "line 1: filter safe is unknown"),
        (&long, "line 1: it is longer than 16384 bytes"),
    ];
    for (text, want) in cases {
        let found = render(text, Escape::Plain).unwrap_err();
        assert!(found.starts_with(want), "{text:.60}: {found}");
    }
}

#[test]
fn a_template_ends_whatever_it_says() {
    let loops = "{% for a in body %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
    assert_eq!(render(&loops, Escape::Plain).unwrap_err(), "line 1: it does too much: write fewer loops");
    let long = "{% for a in body %}{% for b in body %}".to_owned() + &"x".repeat(1000) + "{% endfor %}{% endfor %}";
    assert_eq!(render(&long, Escape::Plain).unwrap_err(), "line 1: it writes more than 65536 bytes");
    let doubled = format!("{{{{ body{} }}}}", "|replace(\"\", \"aaaaaaaaaa\")".repeat(20));
    assert_eq!(render(&doubled, Escape::Plain).unwrap_err(), "line 1: a text longer than 65536 bytes");
    let joined = format!("{{{{ body{} }}}}", "|join(body)".repeat(20));
    assert_eq!(render(&joined, Escape::Plain).unwrap_err(), "line 1: a text longer than 65536 bytes");
}

#[test]
fn nothing_but_the_variables_is_there() {
    let environment = environment(Escape::Plain);
    assert_eq!(environment.globals().count(), 0, "no functions");
    let values = Variables::samples()[0].values();
    let names: Vec<&str> = values.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "alert",
            "ask",
            "at",
            "body",
            "changes",
            "channel",
            "condition",
            "count",
            "dedup_key",
            "doing",
            "incident",
            "lasted",
            "name",
            "policy",
            "reason",
            "service",
            "severity",
            "since",
            "site",
            "tier",
            "title",
            "transition",
        ]
    );
}

#[test]
fn a_routes_words_go_before_its_channels() {
    let templates = |title: Option<&str>, fields: &[(&str, &str)]| Templates {
        title: title.map(|text| Template::parse(text).unwrap()),
        fields: fields.iter().map(|(k, v)| ((*k).to_owned(), Template::parse(v).unwrap())).collect(),
        ..Templates::default()
    };
    let route = templates(None, &[("Wiki", "r")]);
    let channel = templates(Some("c"), &[("Wiki", "c"), ("Team", "c")]);
    assert_eq!(route.or(&channel), templates(Some("c"), &[("Wiki", "r"), ("Team", "c")]));
}
