package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCopyKeepsContentModesAndLinks(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(from, "deep/er"), 0o700))
	must(t, os.WriteFile(filepath.Join(from, "deep/er/bundle"), []byte("x"), 0o755))
	must(t, os.WriteFile(filepath.Join(from, "plain"), []byte("y"), 0o640))
	must(t, os.Symlink("deep/er/bundle", filepath.Join(from, "link")))
	must(t, copyAll([]string{from}, to))
	info, err := os.Stat(filepath.Join(to, "deep/er/bundle"))
	must(t, err)
	if info.Mode().Perm() != 0o755 {
		t.Errorf("the mode is %v", info.Mode())
	}
	if link, _ := os.Readlink(filepath.Join(to, "link")); link != "deep/er/bundle" {
		t.Errorf("the link leads to %q", link)
	}
	if content, _ := os.ReadFile(filepath.Join(to, "plain")); string(content) != "y" {
		t.Errorf("the content is %q", content)
	}
}

func TestCopyNamesWhatIsMissing(t *testing.T) {
	err := copyAll([]string{"/no/such/folder"}, t.TempDir())
	if err == nil || err.Error() != "/no/such/folder cannot be copied: stat /no/such/folder: no such file or directory; "+
		"the artifact's image must hold it" {
		t.Errorf("the error is %v", err)
	}
}

func TestInstallTwiceIsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "launcher")
	must(t, install(path))
	must(t, install(path))
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("there are %d files", len(entries))
	}
}

func TestAddressesHaveTheFormOfProc(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:8080":          "0100007F:1F90",
		"10.89.0.1:80":            "0100590A:0050",
		"[::ffff:127.0.0.1]:8080": "0100007F:1F90",
	} {
		if got, err := hexAddress(text); err != nil || got != want {
			t.Errorf("%s is %s (%v), not %s", text, got, err, want)
		}
	}
}

func TestASocketOfOursIsOursAndNobodyElses(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	connection, err := net.Dial("tcp4", listener.Addr().String())
	must(t, err)
	defer connection.Close()
	peer, local := connection.LocalAddr().String(), connection.RemoteAddr().String()
	if !owns(os.Getpid(), peer, local) {
		t.Error("our own socket is not found")
	}
	if owns(1<<22-1, peer, local) {
		t.Error("it is said to belong to a process that is not there")
	}
	if owns(os.Getpid(), "127.0.0.1:1", local) {
		t.Error("a socket that is not there is found")
	}
}

func TestTheRuntimesEnvironmentIsTheContainersAndWhatIsSet(t *testing.T) {
	t.Setenv("POLYPOD_SOCKET", "/x")
	t.Setenv("OWN", "1")
	t.Setenv("BOTH", "1")
	got := environment([]string{"java"}, map[string]string{"BOTH": "2"})
	for _, want := range []string{"OWN=1", "BOTH=2"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, unwanted := range []string{"POLYPOD_SOCKET=/x", "BOTH=1"} {
		if slices.Contains(got, unwanted) {
			t.Errorf("%s is there", unwanted)
		}
	}
}

func TestACommandThatIsNotASCIIGetsALocaleOfUTF8(t *testing.T) {
	for _, one := range []struct{ all, lang, path, want string }{
		{"C", "", "größe/app.jar", "LC_ALL=C.UTF-8"},
		{"", "", "größe/app.jar", "LC_ALL=C.UTF-8"},
		{"", "de_DE.ISO-8859-1", "größe/app.jar", "LC_ALL=C.UTF-8"},
		{"", "de_DE.UTF-8", "größe/app.jar", "LANG=de_DE.UTF-8"},
		{"en_US.utf8", "C", "größe/app.jar", "LC_ALL=en_US.utf8"},
		{"C", "", "app.jar", "LC_ALL=C"},
	} {
		t.Setenv("LC_ALL", one.all)
		t.Setenv("LC_CTYPE", "")
		t.Setenv("LANG", one.lang)
		got := environment([]string{"java", one.path}, nil)
		if !slices.Contains(got, one.want) {
			t.Errorf("%+v: %v", one, got)
		}
		if one.want != "LC_ALL=C.UTF-8" && slices.Contains(got, "LC_ALL=C.UTF-8") {
			t.Errorf("%+v: the locale was changed", one)
		}
	}
}

func TestTheWaitForTheBridgeIsWhatThePodSays(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": connectWait, "70": 70 * time.Second, "0.5": time.Second / 2, "-1": connectWait, "NaN": connectWait,
		"1e300": connectWait, "soon": connectWait,
	} {
		if got := bridgeWait(text); got != want {
			t.Errorf("%q is %s, not %s", text, got, want)
		}
	}
}

func TestABridgeThatDoesNotComeIsTheContainersTerminationMessage(t *testing.T) {
	terminationLog = filepath.Join(t.TempDir(), "termination-log")
	t.Setenv("POLYPOD_SOCKET", filepath.Join(socketFolder(t), "bridge.sock"))
	t.Setenv("POLYPOD_BRIDGE_WAIT", "0.05")
	if code := run(); code != exitBridge {
		t.Errorf("the exit code is %d", code)
	}
	if _, err := os.Stat(terminationLog); err == nil {
		t.Error("it has made a file where there was none")
	}
	must(t, os.WriteFile(terminationLog, nil, 0o666))
	run()
	said, err := os.ReadFile(terminationLog)
	must(t, err)
	if !strings.HasPrefix(string(said), "polypod-launcher: the bridge did not answer within 50ms: ") ||
		!strings.HasSuffix(string(said), "; the task did not start\n") {
		t.Errorf("it says %q", said)
	}
}

func TestASocketThatIsNotForThisUserIsNotWaitedFor(t *testing.T) {
	folder := filepath.Join(socketFolder(t), "closed")
	must(t, os.Mkdir(folder, 0))
	if os.Getuid() == 0 {
		// root may use every socket: be nobody to the file system, in this thread
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		must(t, syscall.Setfsuid(65534))
		defer syscall.Setfsuid(0)
	}
	begin := time.Now()
	if _, err := connect(filepath.Join(folder, "bridge.sock"), time.Minute, nil); !errors.Is(err, syscall.EACCES) {
		t.Errorf("the error is %v", err)
	}
	if time.Since(begin) > 30*time.Second {
		t.Error("it has waited")
	}
}

func TestAPathThatIsTooLongForASocketIsNotWaitedFor(t *testing.T) {
	begin := time.Now()
	if _, err := connect("/"+strings.Repeat("x", 108), time.Minute, nil); !isRefused(err) {
		t.Errorf("the error is %v", err)
	}
	if time.Since(begin) > 30*time.Second {
		t.Error("it has waited")
	}
}

// socketFolder makes a folder for a socket: the path of t.TempDir has the test's name in it and may be too long for one.
func socketFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "s")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(folder)) })
	return folder
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
