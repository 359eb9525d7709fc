-- Sends an exact number of requests, which is the argument, from every thread of wrk. Each thread has one connection.
--
-- A request without a response is repeated, so the numbers are those of completed requests. Every thread prints a line
-- for each percent. The last line is a JSON object with the completed requests.

local WORKSPACES, OWNERS = 50, 20
local threads = {}

function setup(thread)
    thread:set("number", #threads)
    table.insert(threads, thread)
end

function init(arguments)
    target = tonumber(arguments[1])
    allowed, denied, other = 0, 0, 0
end

local function id(kind, index)
    return string.format("0193a1b2-0000-7000-8000-%04x%08x", kind, index)
end

function request()
    local sequence = number * target + allowed + denied
    local headers = { ["X-Workspace"] = id(1, sequence % WORKSPACES), ["X-Owner"] = id(2, sequence % OWNERS) }
    return wrk.format("GET", sequence % 4 == 3 and "/denied" or "/allowed", headers)
end

function response(status)
    if status == 200 then
        allowed = allowed + 1
    elseif status == 403 then
        denied = denied + 1
    else
        other = other + 1
    end
    local completed = allowed + denied
    if completed % (target / 100) == 0 then
        io.write("percent\n")
        io.flush()
    end
    if completed == target then
        wrk.thread:stop()
    end
end

function done()
    local sums = { allowed = 0, denied = 0, other = 0 }
    for _, thread in ipairs(threads) do
        for name in pairs(sums) do
            sums[name] = sums[name] + thread:get(name)
        end
    end
    print(string.format('{"allowed": %d, "denied": %d, "other": %d}', sums.allowed, sums.denied, sums.other))
end
