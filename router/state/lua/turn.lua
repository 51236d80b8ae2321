-- One turn of a worker, whole: carry out what it orders, grant what it asks for, take in what it
-- learned, and give out what changed since its last turn.
--
-- All that is learned stands in hashes, one for each name; a name is changed under the next number
-- of one sequence, and `changes` keeps the names in the order of their last change. So a turn costs
-- what changed, whatever there is. All writes commute: sums add, deadlines extend.
--
-- A limit is a sorted set: of holders by the time at which they lapse, or, for requests per minute,
-- of grants by their time. Who waits stands in a queue beside it, in the order of first asking; room
-- that others wait for is theirs first.
--
-- KEYS[1]  a key of the namespace, for its slot
-- ARGV     prefix, the turn as JSON; numbers that must be exact come as strings
-- returns  {seconds, microseconds, generation, up to where, more, workers}, names and their fields
--          in turn, and one grant for each lease that was asked for

local prefix, turn = ARGV[1], cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local DAY, WINDOW, WAITS, ALIVE = 86400, 60, 3, 10

local function key(name)
  return prefix .. name
end

-- Whole or not at all ----------------------------------------------------------------------------

-- Redis takes back nothing of a script that fails half-way. So what may fail comes first: to write
-- at all, where memory is out, and to find something else under one of the names to be changed.
redis.call('SET', key('generation'), turn.proposed, 'NX')

local function expect(kind, name)
  local found = redis.call('TYPE', key(name)).ok
  if found ~= kind and found ~= 'none' then
    error('WRONGTYPE ' .. key(name) .. ' is a ' .. found .. ' of somebody else\'s')
  end
end

-- Measured before it is read: it may be of any size.
local function expect_number(name, field)
  local length = redis.call('HSTRLEN', key(name), field)
  if length > 400 or (length > 0 and not tonumber(redis.call('HGET', key(name), field))) then
    error('WRONGTYPE ' .. field .. ' of ' .. key(name) .. ' is no number of ours')
  end
end

local fixed = {
  string = {'generation', 'version', 'tickets'},
  hash = {'sequences', 'jobs'},
  zset = {'changes', 'expiries', 'workers', 'seen'},
  list = {'history'},
}
for kind, names in pairs(fixed) do
  for _, name in ipairs(names) do expect(kind, name) end
end
for _, what in ipairs({'sums', 'counts', 'restored', 'ejections'}) do
  for _, item in ipairs(turn.learned[what]) do expect('hash', item[1]) end
end
for _, item in ipairs(turn.learned.sums) do
  for _, field in ipairs({'w', 't', 'q', 'n'}) do expect_number(item[1], field) end
end
for _, item in ipairs(turn.learned.counts) do expect_number(item[1], item[2]) end
for _, item in ipairs(turn.learned.ejections) do expect('hash', item[3]) end
for _, order in ipairs(turn.orders) do
  for _, what in ipairs({'release', 'hold', 'resources'}) do
    for _, resource in ipairs(order[what] or {}) do expect('zset', resource) end
  end
end
for _, ask in ipairs(turn.asks) do
  for _, choice in ipairs(ask.choices) do
    for _, need in ipairs(choice) do
      expect('zset', need[1])
      expect('zset', 'queue:' .. need[1])
      expect('zset', 'queue:' .. need[1] .. ':asked')
    end
  end
end

-- Orders ------------------------------------------------------------------------------------------

-- The exchange under a lease has ended: give back, or hold on. A slot goes over from the token to
-- its job in this one script. Where the job has been seen to end before its acceptance was told, a
-- tombstone says so, and the slot is given back.
local function settle(order)
  local holder, job = order.holder, order.job
  local ended = holder ~= '' and redis.call('GET', key('ended:' .. holder))
  for _, resource in ipairs(order.release) do
    redis.call('ZREM', key(resource), order.token)
  end
  for _, resource in ipairs(order.hold) do
    redis.call('ZREM', key(resource), order.token)
    if not ended then
      local lapses = now + tonumber(order.seconds)
      redis.call('ZADD', key(resource), lapses, holder ~= '' and holder or order.token)
      redis.call('EXPIRE', key(resource), DAY)
    end
  end
  if holder == '' then return end
  if ended then
    local known = cjson.decode(job)
    known.status = ended
    job = cjson.encode(known)
  end
  -- What is known of it already was seen later than its acceptance.
  redis.call('HSETNX', key('jobs'), holder, job)
  redis.call('ZADD', key('seen'), 'NX', now, holder)
  -- Bounded by age, whatever is accepted.
  local stale = redis.call('ZRANGEBYSCORE', key('seen'), '-inf', now - DAY, 'LIMIT', 0, 100)
  for _, other in ipairs(stale) do
    redis.call('ZREM', key('seen'), other)
    redis.call('HDEL', key('jobs'), other)
  end
  redis.call('EXPIRE', key('jobs'), 2 * DAY)
  redis.call('EXPIRE', key('seen'), 2 * DAY)
end

-- A job was seen: renew what it holds, or give it back. It may hold its slot under any deployment of
-- its account, so all of them are looked at. What ended leaves a tombstone for as long as somebody
-- may take it for running: news of its acceptance may still be on the way, and who accepted it
-- registers it again after an outage.
local function seen(order)
  for _, resource in ipairs(order.resources) do
    if order.ended then
      redis.call('ZREM', key(resource), order.holder)
    else
      redis.call('ZADD', key(resource), 'XX', now + tonumber(order.seconds), order.holder)
    end
  end
  if order.ended then
    local lasts = math.max(600, math.ceil(tonumber(order.seconds)))
    redis.call('SET', key('ended:' .. order.holder), order.status, 'EX', lasts)
  end
  local job = redis.call('HGET', key('jobs'), order.holder)
  if job then
    local known = cjson.decode(job)
    known.status, known.seen_at = order.status, string.format('%.6f', now)
    redis.call('HSET', key('jobs'), order.holder, cjson.encode(known))
    redis.call('ZADD', key('seen'), now, order.holder)
  end
end

local function release(order)
  for _, resource in ipairs(order.resources) do
    redis.call('ZREM', key(resource), order.holder)
  end
end

local orders = {settle = settle, seen = seen, release = release}
for _, order in ipairs(turn.orders) do
  orders[order.kind](order)
end

-- Leases ------------------------------------------------------------------------------------------

-- How many hold a resource, and how many wait for it before this asker.
local function standing(resource, window, ticket)
  local queue = key('queue:' .. resource)
  redis.call('ZREMRANGEBYSCORE', key(resource), '-inf', window and now - WINDOW or now)
  -- Who has not asked again for some seconds waits no more.
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', queue .. ':asked', '-inf', now - WAITS)) do
    redis.call('ZREM', queue, gone)
    redis.call('ZREM', queue .. ':asked', gone)
  end
  local before = ticket ~= '' and redis.call('ZRANK', queue, ticket)
  return redis.call('ZCARD', key(resource)), before or redis.call('ZCARD', queue)
end

-- In how many seconds a window has room; '' where nothing is in it.
local function opens(resource, place)
  local entry = redis.call('ZRANGE', key(resource), place, place, 'WITHSCORES')
  return entry[2] and string.format('%.6f', tonumber(entry[2]) + WINDOW - now) or ''
end

-- The first need of a choice that has no room, and when it will; nothing where all have.
local function blocked(choice, ticket)
  for _, need in ipairs(choice) do
    local resource, limit, window = need[1], need[2], need[3]
    local held, before = standing(resource, window, ticket)
    if held + before >= limit then
      -- Room comes when as many grants have left the window as stand in the way.
      local place = math.min(held + before - limit, held - 1)
      return {resource, (window and limit > 0 and held > 0) and opens(resource, place) or ''}
    end
  end
end

local function each_need(choices, act)
  for _, choice in ipairs(choices) do
    for _, need in ipairs(choice) do act(need) end
  end
end

local function leave(ask)
  if ask.ticket == '' then return end
  each_need(ask.choices, function(need)
    redis.call('ZREM', key('queue:' .. need[1]), ask.ticket)
    redis.call('ZREM', key('queue:' .. need[1] .. ':asked'), ask.ticket)
  end)
end

local function enter(ask, full)
  if ask.ticket == '' then return end
  for _, block in ipairs(full) do
    local queue = key('queue:' .. block[1])
    if not redis.call('ZSCORE', queue, ask.ticket) then
      redis.call('ZADD', queue, redis.call('INCR', key('tickets')), ask.ticket)
      redis.call('EXPIRE', key('tickets'), DAY)
    end
  end
  -- A place is kept while its holder asks, also where something else stands in the way just now.
  each_need(ask.choices, function(need)
    local queue = key('queue:' .. need[1])
    if redis.call('ZSCORE', queue, ask.ticket) then
      redis.call('ZADD', queue .. ':asked', now, ask.ticket)
      redis.call('EXPIRE', queue, 60)
      redis.call('EXPIRE', queue .. ':asked', 60)
    end
  end)
end

-- The jobs that hold what was asked for. One worker at a time is to ask after those that nobody has
-- seen for longest.
local function holding(full)
  local jobs, done = {}, {}
  for _, block in ipairs(full) do
    local resource = block[1]
    if string.sub(resource, 1, 5) == 'jobs:' and not done[resource] then
      done[resource] = true
      local mine = redis.call('SET', key('asking:' .. resource), turn.worker, 'NX', 'PX', 2000)
      local known = {}
      for _, holder in ipairs(redis.call('ZRANGE', key(resource), 0, 99)) do
        local at = not done[holder] and redis.call('ZSCORE', key('seen'), holder)
        local job = at and redis.call('HGET', key('jobs'), holder)
        if job then known[#known + 1] = {tonumber(at), job} end
        done[holder] = true
      end
      table.sort(known, function(one, other) return one[1] < other[1] end)
      for place, item in ipairs(known) do
        jobs[#jobs + 1] = {(mine and place <= 3) and 1 or 0, item[2]}
      end
    end
  end
  return jobs
end

local function grant(ask)
  local full = {}
  for index, choice in ipairs(ask.choices) do
    local block = blocked(choice, ask.ticket)
    if not block then
      for _, need in ipairs(choice) do
        local lapses = now + tonumber(need[4])
        redis.call('ZADD', key(need[1]), need[3] and now or lapses, ask.token)
        redis.call('EXPIRE', key(need[1]), DAY)
      end
      leave(ask)
      return {index - 1, {}, {}}
    end
    full[#full + 1] = block
  end
  enter(ask, full)
  return {-1, full, holding(full)}
end

local grants = {}
for index, ask in ipairs(turn.asks) do
  grants[index] = grant(ask)
end

-- What was learned --------------------------------------------------------------------------------

-- A name is changed, and lasts until a time; then nobody needs to hear of it any more.
local function changed(name, ends)
  redis.call('ZADD', key('changes'), redis.call('INCR', key('version')), name)
  redis.call('ZADD', key('expiries'), ends, name)
end

local function add(learned)
  for _, item in ipairs(learned.sums) do
    local name = item[1]
    redis.call('HINCRBYFLOAT', key(name), 'w', item[2])
    redis.call('HINCRBYFLOAT', key(name), 't', item[3])
    redis.call('HINCRBYFLOAT', key(name), 'q', item[4])
    redis.call('HINCRBY', key(name), 'n', item[5])
    redis.call('EXPIRE', key(name), item[6])
    changed(name, now + item[6])
  end
  for _, item in ipairs(learned.counts) do
    redis.call('HINCRBY', key(item[1]), item[2], item[3])
    redis.call('EXPIRE', key(item[1]), item[4])
    changed(item[1], now + item[4])
  end
end

local function restore(item)
  local name, at = item[1], tonumber(item[2])
  if at > tonumber(redis.call('HGET', key(name), 'at') or '0') then
    redis.call('HSET', key(name), 'at', item[2])
    redis.call('EXPIRE', key(name), DAY)
    changed(name, now + DAY)
  end
end

-- Ejections only extend; but what was decided before a restoration is void, whenever it comes, and
-- what is about another key stands in nobody's way.
local function eject(item)
  local name, ejection = item[1], item[2]
  local held = redis.call('HMGET', key(name), 'until', 'at', 'credential')
  local restored = tonumber(redis.call('HGET', key(item[3]), 'at') or '0')
  if tonumber(ejection.at) < restored then return end
  local ends = tonumber(ejection['until'])
  local void = held[1] and tonumber(held[2]) < restored
  if not held[1] or void or held[3] ~= ejection.credential or ends > tonumber(held[1]) then
    for field, value in pairs(ejection) do
      redis.call('HSET', key(name), field, value)
    end
    local lasts = math.ceil(math.max(ends, now)) + 60
    redis.call('EXPIREAT', key(name), lasts)
    changed(name, lasts)
  end
end

local generation = redis.call('GET', key('generation'))
if turn.sequence > tonumber(redis.call('HGET', key('sequences'), turn.worker) or '0') then
  redis.call('HSET', key('sequences'), turn.worker, turn.sequence)
  add(turn.learned)
  for _, item in ipairs(turn.learned.restored) do restore(item) end
  for _, item in ipairs(turn.learned.ejections) do eject(item) end
  for _, change in ipairs(turn.learned.changes) do
    redis.call('LPUSH', key('history'), change)
  end
  if #turn.learned.changes > 0 then
    redis.call('LTRIM', key('history'), 0, 199)
    redis.call('EXPIRE', key('history'), 7 * DAY)
  end
  if #turn.learned.ejections + #turn.learned.restored > 0 then
    -- Who may not publish is heard in time all the same.
    redis.pcall('PUBLISH', key('news'), turn.worker)
  end
end

-- Who is there ------------------------------------------------------------------------------------

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now - DAY)) do
  redis.call('ZREM', key('workers'), gone)
  redis.call('HDEL', key('sequences'), gone)
end
-- Who only looks on has a place here, so that its sequence is forgotten in time, but is not alive.
redis.call('ZADD', key('workers'), turn.onlooker and now - 2 * ALIVE or now, turn.worker)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', key('expiries'), '-inf', now, 'LIMIT', 0, 500)) do
  redis.call('ZREM', key('expiries'), name)
  redis.call('ZREM', key('changes'), name)
end
for _, name in ipairs({'version', 'changes', 'expiries', 'generation', 'sequences', 'workers'}) do
  redis.call('EXPIRE', key(name), 2 * DAY)
end

-- What changed ------------------------------------------------------------------------------------

-- A store that was emptied, or that fell back behind what this worker has seen, is read anew.
local version = tonumber(redis.call('GET', key('version')) or '0')
local since = tonumber(turn.since)
if generation ~= turn.known or since > version then since = 0 end
local found = redis.call('ZRANGEBYSCORE', key('changes'), '(' .. since, '+inf',
  'WITHSCORES', 'LIMIT', 0, turn.most)
local up_to, more = version, 0
if #found == 2 * turn.most then
  up_to, more = found[#found], 1
end
local names = {}
for index = 1, #found, 2 do
  local fields = redis.call('HGETALL', key(found[index]))
  if #fields == 0 then
    redis.call('ZREM', key('changes'), found[index])
  else
    names[#names + 1] = found[index]
    names[#names + 1] = fields
  end
end
local alive = redis.call('ZCOUNT', key('workers'), now - ALIVE, '+inf')
return {{time[1], time[2], generation, up_to, more, alive}, names, grants}
