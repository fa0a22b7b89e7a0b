-- wrk's script: sends the requests that lie whole in the files DIR/0 .. DIR/N-1, in turn, and tells the figures as JSON.
-- Usage: wrk ... -s rows.lua URL -- DIR N
local ready = {}
local at = 0

function init(args)
  for number = 0, tonumber(args[2]) - 1 do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    ready[number + 1] = file:read("*a")
    file:close()
  end
end

function request()
  at = at % #ready + 1
  return ready[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "bytes": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
