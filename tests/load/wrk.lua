-- What wrk asks for, and what it reports. Arguments: PATH KEYS LIMIT.
-- One key is one fixed request, which wrk keeps; of more keys each request takes one by chance.

function init(args)
   local path, keys, limit = args[1], tonumber(args[2]), tonumber(args[3])
   local requests = {}
   for key = 0, keys - 1 do
      requests[key + 1] = wrk.format("GET", path .. "?skip=" .. key * limit .. "&limit=" .. limit)
   end
   math.randomseed(1) -- the same order for every target
   request = function() return requests[math.random(keys)] end
end

-- One line of JSON, the last that wrk prints. Times in microseconds.
function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      '{"requests": %d, "duration_us": %d, "errors": %d, "p50_us": %d, "p99_us": %d}',
      summary.requests, summary.duration,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
