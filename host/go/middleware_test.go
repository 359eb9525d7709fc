package boundaryusage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"

	usage "example.com/boundary-usage/host/go"
)

// newUpstreams starts a server for HTTP and one for HTTPS. Both respond with the path of the request.
func newUpstreams(t *testing.T) (plain, encrypted *httptest.Server) {
	echo := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		fmt.Fprint(writer, request.URL.Path)
	})
	plain, encrypted = httptest.NewServer(echo), httptest.NewTLSServer(echo)
	t.Cleanup(plain.Close)
	t.Cleanup(encrypted.Close)
	return plain, encrypted
}

// forwardProxy forwards requests and tunnels, except those to the port 1.
func forwardProxy(writer http.ResponseWriter, request *http.Request) {
	if _, _, ok := identifyByProxyUser(request); !ok {
		writer.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(writer, "no identity", http.StatusProxyAuthRequired)
		return
	}
	request.Header.Del("Proxy-Authorization")
	if strings.HasSuffix(request.Host, ":1") {
		http.Error(writer, "denied", http.StatusForbidden)
		return
	}
	if request.Method == http.MethodConnect {
		tunnel(writer, request)
		return
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	writer.WriteHeader(response.StatusCode)
	_, _ = io.Copy(writer, response.Body)
}

// tunnel takes over the client's connection, and copies in both directions until one end closes.
func tunnel(writer http.ResponseWriter, request *http.Request) {
	upstream, err := net.Dial("tcp", request.Host)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	client, buffered, err := writer.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer client.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(upstream, buffered)
		_ = upstream.Close()
	}()
	_, _ = io.Copy(client, upstream)
}

// identifyByProxyUser reads the workspace and the owner from the user and the password of the proxy's URL.
func identifyByProxyUser(request *http.Request) (workspace, owner usage.ID, ok bool) {
	basic := http.Request{Header: http.Header{"Authorization": request.Header["Proxy-Authorization"]}}
	user, password, _ := basic.BasicAuth()
	workspace, err := usage.ParseID(user)
	if err != nil {
		return
	}
	owner, err = usage.ParseID(password)
	return workspace, owner, err == nil
}

// clientOf returns a client of a workspace, which uses the proxy for HTTP and for tunnels.
func clientOf(proxy, upstream *httptest.Server, user *url.Userinfo) *http.Client {
	address, _ := url.Parse(proxy.URL)
	address.User = user
	transport := upstream.Client().Transport.(*http.Transport).Clone()
	transport.Proxy = http.ProxyURL(address)
	return &http.Client{Transport: transport}
}

// TestAForwardProxyCountsEveryRequestOfRealClientsOnce sends requests of 5 workspaces from goroutines, and others with
// curl.
func TestAForwardProxyCountsEveryRequestOfRealClientsOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, databaseURL string) {
		tracker := start(t, usage.Options{Database: databaseURL})
		var logged bytes.Buffer
		middleware := usage.NewMiddleware(
			tracker, identifyByProxyUser, usage.MiddlewareOptions{ErrorLog: log.New(&logged, "", 0)})
		proxy := httptest.NewServer(middleware.Handler(http.HandlerFunc(forwardProxy)))
		plain, encrypted := newUpstreams(t)
		var clients sync.WaitGroup
		for number := uint64(1); number <= 5; number++ {
			clients.Add(1)
			go func(user *url.Userinfo) {
				defer clients.Done()
				client := clientOf(proxy, encrypted, user)
				for i := 0; i < 20; i++ {
					expectStatus(t, client, plain.URL+"/a", http.StatusOK)
					expectStatus(t, client, "http://127.0.0.1:1/", http.StatusForbidden)
				}
				expectStatus(t, client, encrypted.URL+"/b", http.StatusOK)
				if _, err := client.Get("https://127.0.0.1:1/"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
					t.Errorf("a denied tunnel: %v", err)
				}
				client.CloseIdleConnections()
			}(url.UserPassword(numbered(number).String(), numbered(1+number%2).String()))
		}
		clients.Wait()
		curl := func(user, target string) string {
			output, _ := exec.Command("curl", "--silent", "--insecure", "--proxy", proxy.URL, "--proxy-user", user,
				"--write-out", "%{http_code} %{http_connect}", "--output", "/dev/null", target).Output()
			return string(output)
		}
		user := numbered(6).String() + ":" + numbered(1).String()
		equal(t, curl(user, plain.URL), "200 000")
		equal(t, curl(user, encrypted.URL), "200 200")
		equal(t, curl(user, "https://127.0.0.1:1"), "000 403")
		equal(t, curl("no:one", plain.URL), "407 000")
		equal(t, curl("no:one", encrypted.URL), "000 407")
		// A tunnel counts when it ends.
		until(t, func() bool {
			return middleware.Counts() == usage.TrafficCounts{Allowed: 107, Denied: 106, Unidentified: 2}
		})
		proxy.Close()
		must(t, tracker.Shutdown(context.Background()))
		equal(t, program{databaseURL}.collect(t), totals{6, 2, 107, 106})
		equal(t, logged.String(), "boundary usage: untracked requests without an identity so far: 1\n"+
			"boundary usage: untracked requests without an identity so far: 2\n")
	})
}

func expectStatus(t *testing.T, client *http.Client, target string, status int) {
	response, err := client.Get(target)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); response.StatusCode != status || err != nil {
		t.Errorf("%s: %d %s %v", target, response.StatusCode, body, err)
	}
}

// identifyOne identifies all requests as those of the same workspace.
func identifyOne(*http.Request) (workspace, owner usage.ID, ok bool) {
	return id("w1"), id("u1"), true
}

func TestEachEndOfAHandlerCountsItsRequestOnce(t *testing.T) {
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		isDenied bool
	}{
		"nothing":       {func(http.ResponseWriter, *http.Request) {}, false},
		"a body":        {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "body") }, false},
		"a late status": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "body"); w.WriteHeader(403) }, false},
		"a late status after a flush": {
			func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); w.WriteHeader(403) }, false},
		"a late status after a copy": {
			func(w http.ResponseWriter, _ *http.Request) {
				io.Copy(w, strings.NewReader("body"))
				w.WriteHeader(403)
			}, false},
		"403":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, true},
		"407":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(407) }, true},
		"403 after 103": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(403) }, true},
		"500":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, false},
		"a panic":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		"a panic after 403": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403); panic(http.ErrAbortHandler) }, true},
		"a taken connection": {func(w http.ResponseWriter, _ *http.Request) {
			connection, _, _ := w.(http.Hijacker).Hijack()
			connection.Close()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			middleware := usage.NewMiddleware(
				start(t, usage.Options{Database: newSqlite(t)}), identifyOne, usage.MiddlewareOptions{})
			server := httptest.NewUnstartedServer(middleware.Handler(test.handler))
			// The server reports late statuses.
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.Start()
			connection, err := net.Dial("tcp", server.Listener.Addr().String())
			must(t, err)
			// Unlike this request, one of the package's client would be repeated after the end of its connection.
			fmt.Fprint(connection, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			_, err = io.ReadAll(connection)
			must(t, err)
			server.Close()
			expected := usage.TrafficCounts{Allowed: 1}
			if test.isDenied {
				expected = usage.TrafficCounts{Denied: 1}
			}
			until(t, func() bool { return middleware.Counts() == expected })
		})
	}
}

func TestRequestsWithoutAValidIdentityPassUntracked(t *testing.T) {
	tracker := start(t, usage.Options{Database: newSqlite(t)})
	var logged bytes.Buffer
	middleware := usage.NewMiddleware(
		tracker, usage.IdentifyByHeaders("X-Workspace", "X-Owner"),
		usage.MiddlewareOptions{ErrorLog: log.New(&logged, "", 0)})
	handler := middleware.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }))
	send := func(workspace, owner string) {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header.Set("x-workspace", workspace)
		request.Header.Set("X-Owner", owner)
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		equal(t, response.Code, 403)
	}
	valid, nilID := id("w1").String(), usage.ID{}.String()
	send(valid, valid)
	for i := 0; i < 10; i++ {
		send(valid, "7")
		send("", valid)
		send(nilID, valid)
	}
	equal(t, middleware.Counts(), usage.TrafficCounts{Denied: 1, Unidentified: 30})
	equal(t, strings.Count(logged.String(), "\n"), 5)
	must(t, tracker.Shutdown(context.Background()))
	logged.Reset()
	send(valid, valid)
	equal(t, middleware.Counts(), usage.TrafficCounts{Denied: 1, Unidentified: 30, Refused: 1})
	equal(t, logged.String(), "boundary usage: untracked requests after a failure so far: 1; "+
		"the last one: boundary usage: the tracker is stopped\n")
}

func TestTheProxyCanDecideItself(t *testing.T) {
	isDenied := func(request *http.Request, status int) bool { return request.URL.Path == "/denied" && status == 0 }
	middleware := usage.NewMiddleware(start(t, usage.Options{Database: newSqlite(t)}), identifyOne,
		usage.MiddlewareOptions{IsDenied: isDenied})
	handler := middleware.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, path := range []string{"/", "/denied", "/denied"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	equal(t, middleware.Counts(), usage.TrafficCounts{Allowed: 1, Denied: 2})
}

func TestHandlersSeeTheOptionalInterfacesOfTheServer(t *testing.T) {
	middleware := usage.NewMiddleware(
		start(t, usage.Options{Database: newSqlite(t)}), identifyOne, usage.MiddlewareOptions{})
	type plain struct{ http.ResponseWriter }
	recorder := httptest.NewRecorder()
	both := struct {
		plain
		http.Flusher
		http.Pusher
	}{plain{recorder}, recorder, pushes{}}
	all := struct {
		plain
		http.Flusher
		http.Pusher
		http.Hijacker
	}{plain{recorder}, recorder, pushes{}, nil}
	for writer, expected := range map[http.ResponseWriter]string{
		plain{recorder}: "false false false",
		recorder:        "true false false",
		both:            "true true false",
		all:             "true true true",
		struct {
			plain
			http.Pusher
		}{plain{recorder}, pushes{}}: "false true false",
		struct {
			plain
			http.Hijacker
		}{plain{recorder}, nil}: "false false true",
		struct {
			plain
			http.Hijacker
			http.Pusher
		}{plain{recorder}, nil, pushes{}}: "false true true",
		struct {
			plain
			http.Flusher
			http.Hijacker
		}{plain{recorder}, recorder, nil}: "true false true",
	} {
		writer := writer
		middleware.Handler(http.HandlerFunc(func(seen http.ResponseWriter, _ *http.Request) {
			_, flushes := seen.(http.Flusher)
			pusher, isPusher := seen.(http.Pusher)
			_, hijacks := seen.(http.Hijacker)
			equal(t, fmt.Sprint(flushes, isPusher, hijacks), expected)
			equal(t, seen.(interface{ Unwrap() http.ResponseWriter }).Unwrap(), writer)
			if isPusher && !errors.Is(pusher.Push("/", nil), http.ErrNotSupported) {
				t.Error("the push does not reach the server")
			}
		})).ServeHTTP(writer, httptest.NewRequest(http.MethodGet, "/", nil))
	}
}

type pushes struct{}

func (pushes) Push(string, *http.PushOptions) error { return http.ErrNotSupported }
