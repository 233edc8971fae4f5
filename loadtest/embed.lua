-- wrk -t1 -c16 -d20s --latency -s loadtest/embed.lua http://127.0.0.1:8080
-- Posts an image to /v1/embed. The variables PHOTO and QUERY set another file and a query.
local path = os.getenv("PHOTO") or "tests/golden/dinov2-small-focus/rocket.jpg"
local file = assert(io.open(path, "rb"))
wrk.method = "POST"
wrk.path = "/v1/embed" .. (os.getenv("QUERY") or "")
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = file:read("*a")
file:close()

