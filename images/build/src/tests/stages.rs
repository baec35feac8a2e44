//! Stages, and what one takes from another.

use super::*;

#[test]
fn stages_build_on_each_other_and_what_nobody_needs_is_not_built() {
    let mut bench = Bench::new();
    bench.write("src", "source");
    let image = bench.build(
        "FROM base AS builder\nRUN write out/program v1\nFROM base AS unneeded\nRUN fail\n\
         FROM builder AS tests\nRUN write tested yes\n\
         FROM scratch\nCOPY --from=builder /out/program /bin/\nCOPY --from=2 tested /\n\
         COPY --from=base /etc/passwd /etc/\nCOPY src /\n",
    );
    assert_eq!(read(&image, "bin/program"), "v1");
    assert_eq!(read(&image, "tested"), "yes");
    assert!(read(&image, "etc/passwd").starts_with("root"));
    assert!(files(&image).stat(Path::new("out")).unwrap().is_none());
    let request = BuildRequest { target: Some("BUILDER".to_owned()), ..bench.request() };
    let target = bench.try_build("FROM base AS builder\nRUN write x y\nFROM scratch\n", request);
    assert_eq!(read(&target.unwrap(), "x"), "y");
}

#[test]
fn args_are_known_where_a_stage_builds_on_theirs() {
    let mut bench = Bench::new();
    bench.build(
        "ARG G=global\nARG H=$G-more\nFROM base AS one\nARG A=1\nARG H\nFROM one AS two\nARG B=$A$H\n\
         RUN x\nFROM base\nCOPY --from=two /etc /x/\nENV C=[$A]\n",
    );
    let env = bench.runner.steps.borrow()[0].env.clone();
    assert!(
        ["A=1", "B=1global-more", "H=global-more"].iter().all(|it| env.contains(&(*it).into()))
    );
    // This one builds on nothing of theirs.
    assert_eq!(bench.config()["Env"], serde_json::json!(["C=[]"]));
}

#[test]
fn triggers_are_executed_by_the_build_on_their_image() {
    let mut bench = Bench::new();
    bench.write("src", "source");
    let request = BuildRequest { names: vec!["parent".to_owned()], ..bench.request() };
    let parent = "FROM base\nONBUILD COPY src /app/\nONBUILD RUN write made yes\n\
                  ONBUILD COPY <<EOF /app/text\ntext\nEOF\nONBUILD ENV A=b\n";
    let parent = bench.try_build(parent, request).unwrap();
    assert!(files(&parent).stat(Path::new("app")).unwrap().is_none());
    let triggers = bench.store.inspect("parent").unwrap().config["OnBuild"].clone();
    assert_eq!(triggers[2], "COPY <<EOF /app/text\ntext\nEOF");
    let child = bench.build("FROM parent\nRUN write own yes\n");
    assert_eq!(read(&child, "app/src"), "source");
    assert_eq!(read(&child, "app/text"), "text\n");
    assert_eq!((read(&child, "made"), read(&child, "own")), ("yes".to_owned(), "yes".to_owned()));
    assert!(bench.config().get("OnBuild").is_none());
    assert_eq!(bench.config()["Env"], serde_json::json!(["A=b"]));
    let again = bench.build("FROM built\n");
    assert_eq!(read(&again, "made"), "yes");
    // Also from stage to stage.
    let stages = bench.build("FROM base AS a\nONBUILD RUN write t 1\nFROM a\n");
    assert_eq!(read(&stages, "t"), "1");
}

#[test]
fn what_the_operator_asked_for_in_vain_is_warned_of() {
    let mut bench = Bench::new();
    let args = ["USED", "UNUSED", "OTHER", "http_proxy", "SOURCE_DATE_EPOCH"];
    let args = args.map(|name| (name.to_owned(), "1".to_owned()));
    let request = BuildRequest { args: HashMap::from(args), ..bench.request() };
    let dockerfile =
        "FROM base AS unneeded\nARG OTHER\nFROM --platform=linux/arm64 base\nARG USED\n";
    bench.try_build(dockerfile, request).unwrap();
    let warnings: Vec<_> = bench.log.iter().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("linux/arm64") && warnings[1].ends_with("argument UNUSED"));
}

#[test]
fn an_image_may_have_several_names() {
    let mut bench = Bench::new();
    let names = ["one", "two:v1"].map(str::to_owned).to_vec();
    let request = BuildRequest { names, ..bench.request() };
    let image = bench.try_build("FROM base\nENV A=b\n", request).unwrap();
    for name in ["one", "two:v1"] {
        assert_eq!(bench.store.resolve(name).unwrap().digest(), image.digest());
    }
}

#[test]
fn a_containerfile_comes_before_a_dockerfile() {
    let mut bench = Bench::new();
    bench.write("Containerfile", "FROM base\nENV A=container\n");
    bench.build("FROM base\nENV A=docker\n");
    assert_eq!(bench.config()["Env"][0], "A=container");
    bench.write("sub/Other", "FROM base\nENV A=other\n");
    let request = BuildRequest { dockerfile: Some("sub/Other".into()), ..bench.request() };
    bench.try_build("", request).unwrap();
    assert_eq!(bench.config()["Env"][0], "A=other");
}
