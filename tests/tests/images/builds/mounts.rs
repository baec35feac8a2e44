//! RUN --mount.

use super::*;

const MOUNTS: &str = r#"FROM busybox AS tools
RUN echo from-tools >/tool
FROM busybox
WORKDIR /work
RUN --mount=type=cache,target=/c/x,mode=0700 echo kept >/c/x/file && ln -s /etc/shadow /c/x/link
RUN --mount=type=cache,target=/c/x cat /c/x/file >/seen && stat -c %a /c/x >>/seen
RUN --mount=type=cache,target=/c/x ! { mknod /c/x/null c 1 3 && cat /c/x/null; } 2>/dev/null
RUN --mount=type=cache,target=/c/x cp /bin/busybox /c/x/id && chmod 4755 /c/x/id
RUN --mount=type=secret,id=token --mount=type=secret,id=token,target=/etc/deep/er/t,uid=7,mode=0440 \
    md5sum </run/secrets/token >>/seen && stat -c '%a %u' /run/secrets/token /etc/deep/er/t >>/seen
RUN --mount=type=secret,id=token,env=TOKEN echo "${#TOKEN}" >>/seen
RUN --mount=type=secret,id=none test ! -e /run/secrets/none
RUN --mount=type=tmpfs,target=/t,size=64k ! dd if=/dev/zero of=/t/f bs=1k count=128 2>/dev/null
RUN --mount=target=.,source=src cat a >>/seen && ! touch new 2>/dev/null
RUN --mount=type=bind,source=src,target=/b,rw touch /b/new && test ! -e /b/hidden
RUN --mount=from=tools,source=/tool,target=/bin/tool cat /bin/tool >>/seen
USER nobody
RUN --mount=type=cache,target=/c/x,id=own,uid=65534 touch /c/x/mine
RUN --mount=type=cache,target=/c/x ! ls /c/x 2>/dev/null
RUN --mount=type=cache,target=/c/x ! test -r /c/x/file
"#;

#[test]
fn mounts_serve_a_command_and_leave_nothing_in_the_image() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "Dockerfile", MOUNTS);
    write(dir.path(), "src/a", "context\n");
    write(dir.path(), "src/hidden", "");
    write(dir.path(), ".dockerignore", "**/hidden\n");
    let outside = tempfile::tempdir().unwrap();
    let token = outside.path().join("token");
    fs::write(&token, "opensesame").unwrap();
    let secret = format!("id=token,src={}", token.display());
    let sandbox = Sandbox::with_busybox();
    let build = ["image", "build", "-t", "app", "--secret", &secret, text(dir.path())];
    sandbox.isolab(&build).finish().success();
    let script = "cat /seen; ls -d /c /t /b /run/secrets /etc/deep /bin/tool /work/* 2>/dev/null";
    let seen = sandbox.isolab(&["run", "-u", "0", "app", "sh", "-c", script]).finish().stdout;
    let sum = tool("sh", &["-c", "printf opensesame | md5sum"]);
    let expected = format!("kept\n700\n{sum}400 0\n440 7\n10\ncontext\nfrom-tools\n");
    assert_eq!(seen, expected);
    assert!(!dir.path().join("src/new").exists());
    let found = Command::new("grep").args(["-rl", "opensesame"]).arg(sandbox.data()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
    // Nothing is done again, and the caches go with the build's.
    let again = sandbox.isolab(&build).finish();
    let steps = again.stderr.lines().filter(|line| line.contains("RUN")).count();
    assert_eq!(again.stderr.matches("    cached").count(), steps + 1, "{again:?}");
    let caches = || {
        let folder = sandbox.data().join("isolab/images/build-cache");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("mount-")).count()
    };
    assert_eq!(caches(), 2);
    sandbox.isolab(&["image", "prune", "--all"]).finish().success();
    assert_eq!(caches(), 0);
}
