use super::*;

fn parsed(text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Keyword and arguments of each instruction behind the first FROM.
fn instructions(text: &str) -> Vec<(Keyword, String)> {
    let dockerfile = parsed(&format!("FROM base\n{text}"));
    let own = dockerfile.stages.into_iter().next().unwrap().instructions;
    own.into_iter().map(|it| (it.keyword, it.arguments)).collect()
}

#[test]
fn lines_are_joined_without_what_counts_for_nothing() {
    for (text, arguments) in [
        ("RUN a", "a"),
        ("  run a  ", "a"),
        ("RUN\ta", "a"),
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\\n\n  b", "a   b"),
        ("RUN a \\\n# comment\n  # another \\\n\n\t\nb", "a b"),
        ("RUN a \\  \nb", "a b"),
        ("RUN a \\\r\nb\r\n", "a b"),
        ("RUN a \\\\\n", "a \\\\"),
        ("RUN a # no comment", "a # no comment"),
        ("RUN a \\\n", "a"),
        ("R\\\nUN a", "a"),
        ("RUN \\\n\n\n# x\na", "a"),
        ("RUN echo \\#a", "echo \\#a"),
    ] {
        assert_eq!(instructions(text), [(Keyword::Run, arguments.to_owned())], "{text:?}");
    }
    let places = parsed("\u{feff}# c\n\nFROM a\nRUN b \\\n\n c\n\nRUN d\n");
    let places = places.stages[0].instructions.iter().map(|it| it.line);
    assert_eq!(places.collect::<Vec<_>>(), [4, 8]);
}

#[test]
fn directives_are_the_first_lines_only() {
    let windows = "# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN dir c:\\ `\n  b\n";
    let dockerfile = parsed(windows);
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(dockerfile.stages[0].instructions[0].arguments, "dir c:\\   b");
    assert_eq!(parsed("# a comment\n# escape=`\nFROM a").escape, '\\');
    assert_eq!(parsed("FROM a\n# escape=`\n").escape, '\\');
    assert_eq!(parse("# escape=x\nFROM a").unwrap_err().line, 1);
}

#[test]
fn here_documents_are_found_anywhere_and_several() {
    let text = "FROM a\nRUN cat <<A >f; cat <<-'B' 3<<\"C D\"\none\nA\n\ttwo\n\tB\n# three\n\
                C D\nCOPY <<x <<y /d/\n1\nx\n2\ny\nRUN cat <<EOF|sh\nls\nEOF\nRUN after\n";
    let dockerfile = parsed(text);
    let own = &dockerfile.stages[0].instructions;
    let told: Vec<Vec<_>> = own
        .iter()
        .map(|it| it.documents.iter().map(|d| (d.name(), d.content(), d.expands())).collect())
        .collect();
    let document = |name, content: &str, expands| (name, content.to_owned(), expands);
    assert_eq!(
        told,
        [
            vec![
                document("A", "one\n", true),
                document("B", "two\n", false),
                document("C D", "# three\n", false)
            ],
            vec![document("x", "1\n", true), document("y", "2\n", true)],
            vec![document("EOF", "ls\n", true)],
            vec![],
        ]
    );
    assert_eq!(own[0].documents[1].as_written(), "\ttwo\nB");
    for plain in ["cat <<<word", "echo $((1<<2))", "echo '<<A'", "[\"a\", \"<<b\"]", "a << b"] {
        let found = parsed(&format!("FROM a\nRUN {plain}\n"));
        assert!(found.stages[0].instructions[0].documents.is_empty(), "{plain}");
    }
    let trigger = parsed("FROM a\nONBUILD RUN <<E\nx\nE\n");
    assert_eq!(trigger.stages[0].instructions[0].documents[0].content(), "x\n");
}

#[test]
fn options_are_taken_from_the_instructions_that_have_some() {
    let text = "FROM --platform=linux/amd64 a AS b\nCOPY --link --from=x --chmod='u+x' s d\n\
                RUN --mount=type=cache,target=/a \\\n  --network=none cmd --flag\nCMD --flag\n";
    let dockerfile = parsed(text);
    let stage = &dockerfile.stages[0];
    assert_eq!((stage.image.as_str(), stage.name.as_deref()), ("a", Some("b")));
    let options = |it: &Instruction| {
        let told = it.options.iter().map(|o| (o.name.clone(), o.value.clone().unwrap_or_default()));
        told.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let own = &stage.instructions;
    assert_eq!(options(&own[0]), ["link=", "from=x", "chmod='u+x'"]);
    assert_eq!(own[0].arguments, "s d");
    assert_eq!(options(&own[1]), ["mount=type=cache,target=/a", "network=none"]);
    assert_eq!(own[1].arguments, "cmd --flag");
    assert_eq!(own[2].arguments, "--flag");
}

#[test]
fn what_does_not_parse_names_its_line() {
    for (text, line, word) in [
        ("", 1, "no FROM"),
        ("# only\n# comments\n", 2, "no FROM"),
        ("ARG A\n", 1, "no FROM"),
        ("RUN a\nFROM b\n", 1, "FROM"),
        ("FROM a\n\nINVALID b\n", 3, "INVALID"),
        ("FROM a\nRUN\n", 2, "argument"),
        ("FROM a\nCOPY --link\n", 2, "argument"),
        ("FROM a b\n", 1, "AS NAME"),
        ("FROM a AS\n", 1, "AS NAME"),
        ("FROM a\nRUN cat <<E\nno end\n", 2, "`E`"),
        ("FROM a\nONBUILD ONBUILD RUN b\n", 2, "ONBUILD"),
        ("FROM a\nONBUILD FROM b\n", 2, "FROM"),
        ("FROM a\nONBUILD\n", 2, "argument"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.why.contains(word), "{text:?}: {error}");
    }
    assert!(parse_trigger("RUN a\nRUN b").is_err() && parse_trigger("").is_err());
    assert_eq!(parse_trigger("COPY . /app").unwrap().arguments, ". /app");
}
