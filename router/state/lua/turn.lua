-- One turn of a worker, whole: carry out what it orders, grant what it asks for, take in what it
-- learned, and give out what changed since its last turn.
--
-- All that is learned stands in hashes, one for each name; a name is changed under the next number
-- of one sequence, and `changes` keeps the names in the order of their last change. So a turn costs
-- what changed, whatever there is. All writes commute: sums add, deadlines extend.
--
-- A limit is a sorted set: of holders by the time at which they lapse, or, for requests per minute,
-- of grants by their time. Who waits stands in a queue beside it, in the order of first asking; room
-- that others wait for is theirs first. Money is a hash for each day: what was spent in all, and
-- under which tokens. What stands under an idempotency key is a hash of its own.
--
-- KEYS[1]  a key of the namespace, for its slot
-- ARGV     prefix, the turn as JSON; numbers that must be exact come as strings
-- returns  {seconds, microseconds, generation, up to where, more, workers}, names and their fields
--          in turn, one grant for each lease that was asked for, the jobs that have ended, and
--          for each claim whether it is the worker's own, and what stands there

local prefix, turn = ARGV[1], cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local DAY, WINDOW, WAITS, ALIVE = 86400, 60, 3, 10
-- A day more than what was spent is kept: who is away for long still hears of it.
local NEWS = 36 * DAY
local today = math.floor(now / DAY)

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
  hash = {'sequences', 'jobs', 'places'},
  zset = {'changes', 'expiries', 'workers', 'seen', 'lapses', 'remembered'},
  list = {'history'},
}
for kind, names in pairs(fixed) do
  for _, name in ipairs(names) do expect(kind, name) end
end
for _, what in ipairs({'sums', 'counts', 'restored', 'returned', 'ejections', 'characters'}) do
  for _, item in ipairs(turn.learned[what]) do expect('hash', item[1]) end
end
for _, item in ipairs(turn.learned.sums) do
  for _, field in ipairs({'w', 't', 'q', 'n'}) do expect_number(item[1], field) end
end
for _, item in ipairs(turn.learned.counts) do expect_number(item[1], item[2]) end
for _, item in ipairs(turn.learned.ejections) do
  for _, name in ipairs(item[3]) do expect('hash', name) end
end
local function expect_queue(resource)
  expect('zset', 'queue:' .. resource)
  expect('zset', 'queue:' .. resource .. ':asked')
end
local function is_money(resource)
  return string.sub(resource, 1, 5) == 'cost:'
end
local function ledger(resource)
  return resource .. ':' .. string.format('%d', today)
end
local TOTAL = '='
local function expect_money(resource)
  expect('hash', ledger(resource))
  expect_number(ledger(resource), TOTAL)
end
local function expect_claim(item)
  expect('hash', 'claim:' .. item.key)
  expect('string', 'freed:' .. item.token)
end
for _, order in ipairs(turn.orders) do
  for _, what in ipairs({'release', 'hold', 'resources'}) do
    for _, resource in ipairs(order[what] or {}) do
      if is_money(resource) then expect_money(resource) else expect('zset', resource) end
    end
  end
  if order.kind == 'spend' then expect_money(order.resource) end
  if order.key then expect_claim(order) end
  for _, resource in ipairs(order.queues or {}) do expect_queue(resource) end
  if (order.running or '') ~= '' then expect('zset', order.running) end
end
for _, ask in ipairs(turn.asks) do
  for _, choice in ipairs(ask.choices) do
    for _, need in ipairs(choice) do
      if need[5] then
        expect_money(need[1])
      else
        expect('zset', need[1])
        expect('zset', 'told:' .. need[1])
        expect_queue(need[1])
      end
    end
  end
end
for _, claim in ipairs(turn.claims) do expect_claim(claim) end

-- A name is changed, and lasts until a time; then nobody needs to hear of it any more. Returns the
-- number of the change.
local function changed(name, ends)
  local number = redis.call('INCR', key('version'))
  redis.call('ZADD', key('changes'), number, name)
  redis.call('ZADD', key('expiries'), ends, name)
  return number
end

-- What runs ---------------------------------------------------------------------------------------

-- The jobs of a deployment stand in a sorted set by the time of their acceptance; `places` says in
-- which one a job stands, and `lapses` until when it is counted on without being seen.
local function runs(order, known)
  redis.call('ZADD', key(order.running), 'NX', known.accepted_at, order.holder)
  redis.call('HSET', key('places'), order.holder, order.running)
  redis.call('ZADD', key('lapses'), now + tonumber(order.seconds), order.holder)
  for _, name in ipairs({order.running, 'places', 'lapses'}) do
    redis.call('EXPIRE', key(name), 2 * DAY)
  end
  changed(order.running, now + 2 * DAY)
end

local function runs_no_more(holder)
  local place = redis.call('HGET', key('places'), holder)
  redis.call('ZREM', key('lapses'), holder)
  redis.call('HDEL', key('places'), holder)
  if place then
    redis.call('ZREM', key(place), holder)
    changed(place, now + 2 * DAY)
  end
end

-- A job is looked at some ten times. To others it is news when it has another status, or is much
-- older than when it was seen before.
local SIGHT, QUEUED, WAITS_AT_LEAST = 10, 'queued', 2
local function goes_on(order, known)
  local place = redis.call('HGET', key('places'), order.holder)
  local since, before = tonumber(known.accepted_at), tonumber(known.seen_at)
  if order.status == QUEUED and now - since > WAITS_AT_LEAST then
    known.waited = string.format('%.6f', now - since)
  end
  if not place then return end
  redis.call('ZADD', key('lapses'), now + tonumber(order.seconds), order.holder)
  local older = math.floor((now - since) / SIGHT) ~= math.floor((before - since) / SIGHT)
  if older or known.status ~= order.status then changed(place, now + 2 * DAY) end
end

-- Money -------------------------------------------------------------------------------------------

-- Each token has its say once: an amount, or nothing where that was given back. So it does no harm
-- to be told again, nor to be told to give back what is granted only later. Of a day that is over
-- nobody asks any more.
local function spend(resource, token, amount)
  local name = key(ledger(resource))
  if redis.call('HSETNX', name, token, amount) == 1 then
    redis.call('HINCRBY', name, TOTAL, amount)
  end
  redis.call('EXPIRE', name, DAY)
end

local function refund(resource, token)
  local name = key(ledger(resource))
  local spent = redis.call('HGET', name, token)
  if not spent then
    spend(resource, token, '0')
  elseif spent ~= '0' then
    redis.call('HSET', name, token, '0')
    redis.call('HINCRBY', name, TOTAL, string.format('%d', -(tonumber(spent) or 0)))
  end
end

-- Claims ------------------------------------------------------------------------------------------

local FACTS = {'fingerprint', 'token', 'state', 'at', 'id', 'operation', 'deployment', 'account'}

local function write(item, lapses)
  local name = key('claim:' .. item.key)
  local fields = {'lapses', string.format('%.6f', lapses)}
  for _, fact in ipairs(FACTS) do
    fields[#fields + 1] = fact
    fields[#fields + 1] = item[fact]
  end
  redis.call('HSET', name, unpack(fields))
  redis.call('EXPIRE', name, DAY)
end

-- What stands under a key, as it is told: who sends and has not said so for too long may be dead.
local function record(item)
  local held = redis.call('HMGET', key('claim:' .. item.key), 'lapses', unpack(FACTS))
  if not held[3] then return end
  local lapses, told = tonumber(held[1] or '0') or 0, {}
  for place = 1, #FACTS do told[place] = held[place + 1] or '' end
  if told[3] == 'sending' and lapses <= now then told[3] = 'unknown' end
  return told, held[3], held[4]
end

-- A claim that was given up stays so, whenever it or its renewals arrive.
local function given_up(item)
  return redis.call('GET', key('freed:' .. item.token))
end

-- Nothing may come between seeing that a key is free and noting that something is being sent.
local function claim(item)
  local told = record(item)
  if told then
    return {(told[2] == item.token and told[3] == 'sending') and 1 or 0, told}
  end
  item.state, item.at = 'sending', string.format('%.6f', now)
  item.id, item.operation, item.deployment, item.account = '', '', '', ''
  local seconds = tonumber(item.seconds)
  if given_up(item) then
    item.state = 'unknown'
  elseif seconds > 0 then
    write(item, now + seconds)
  end
  told = {}
  for place, fact in ipairs(FACTS) do told[place] = item[fact] end
  return {item.state == 'sending' and 1 or 0, told}
end

local function renew(order)
  local told, token, state = record(order)
  local own = told and token == order.token and state == 'sending'
  if own or (not told and not given_up(order)) then
    write(order, now + tonumber(order.seconds))
  end
end

local function conclude(order)
  local told, token, state = record(order)
  local own = not told or token == order.token
  if told and own and state == 'accepted' then return end
  if order.state == 'free' then
    if own then redis.call('DEL', key('claim:' .. order.key)) end
    redis.call('SET', key('freed:' .. order.token), '1', 'EX', 600)
  elseif own then
    write(order, now)
  end
end

-- Orders ------------------------------------------------------------------------------------------

-- What holds a resource is kept for a day, or for as long as it holds.
local function keep(resource, seconds)
  redis.call('EXPIRE', key(resource), math.max(DAY, math.ceil(tonumber(seconds))))
end

-- The exchange under a lease has ended: give back, or hold on. A slot goes over from the token to
-- its job in this one script. Where the job has been seen to end before its acceptance was told, a
-- tombstone says so, and the slot is given back.
local function settle(order)
  local holder, job = order.holder, order.job
  local ended = holder ~= '' and redis.call('GET', key('ended:' .. holder))
  for _, resource in ipairs(order.release) do
    if is_money(resource) then
      refund(resource, order.token)
    else
      redis.call('ZREM', key(resource), order.token)
    end
  end
  for _, resource in ipairs(order.hold) do
    redis.call('ZREM', key(resource), order.token)
    if not ended then
      local lapses = now + tonumber(order.seconds)
      redis.call('ZADD', key(resource), lapses, holder ~= '' and holder or order.token)
      keep(resource, order.seconds)
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
  if not ended then runs(order, cjson.decode(job)) end
  redis.call('ZADD', key('seen'), 'NX', now, holder)
  -- Bounded by age, whatever is accepted.
  local stale = redis.call('ZRANGEBYSCORE', key('seen'), '-inf', now - DAY, 'LIMIT', 0, 100)
  for _, other in ipairs(stale) do
    redis.call('ZREM', key('seen'), other)
    redis.call('HDEL', key('jobs'), other)
    runs_no_more(other)
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
      keep(resource, order.seconds)
    end
  end
  if order.ended then
    local lasts = math.max(600, math.ceil(tonumber(order.seconds)))
    redis.call('SET', key('ended:' .. order.holder), order.status, 'EX', lasts)
  end
  local job = redis.call('HGET', key('jobs'), order.holder)
  if job then
    local known = cjson.decode(job)
    if order.ended then runs_no_more(order.holder) else goes_on(order, known) end
    known.status, known.seen_at = order.status, string.format('%.6f', now)
    redis.call('HSET', key('jobs'), order.holder, cjson.encode(known))
    redis.call('ZADD', key('seen'), now, order.holder)
  end
end

local function release(order)
  for _, resource in ipairs(order.resources) do
    redis.call('ZREM', key(resource), order.holder)
  end
  runs_no_more(order.holder)
end

-- Who waited gives up, and stands in nobody's way any longer.
local function give_up(queues, ticket)
  for _, resource in ipairs(queues) do
    redis.call('ZREM', key('queue:' .. resource), ticket)
    redis.call('ZREM', key('queue:' .. resource .. ':asked'), ticket)
  end
end

local function leave(order)
  give_up(order.queues, order.ticket)
end

-- Spent while the store was away, or too slow to be asked, or besides what was reserved. What was
-- reserved too much counts only where so much stands under the token that it was reserved with.
local function spent(order)
  if math.floor(tonumber(order.at) / DAY) < today then return end
  if tonumber(order.amount) < 0 then
    local reserved = redis.call('HGET', key(ledger(order.resource)), order.of)
    if (tonumber(reserved or '0') or 0) + tonumber(order.amount) < 0 then return end
  end
  spend(order.resource, order.token, order.amount)
end

local orders = {
  settle = settle,
  spend = spent,
  seen = seen,
  release = release,
  leave = leave,
  renew = renew,
  conclude = conclude,
}
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

-- In how many seconds a window has room: when as many grants have left it as stand in the way, or
-- as who may come then will have filled it anew. Nothing where nothing is in it, or may be.
local function opens(resource, held, limit, place)
  if limit <= 0 or held <= 0 then return end
  local rounds = place < held and 0 or 1 + math.floor((place - held) / limit)
  if rounds > 0 then
    place = math.min(math.max(held - limit, 0) + (place - held) % limit, held - 1)
  end
  local entry = redis.call('ZRANGE', key(resource), place, place, 'WITHSCORES')
  return tonumber(entry[2]) + WINDOW * (1 + rounds) - now
end

-- How many were told to come back when a window opens for them, and have not come yet.
local function about_to_come(resource)
  redis.call('ZREMRANGEBYSCORE', key('told:' .. resource), '-inf', now)
  return redis.call('ZCARD', key('told:' .. resource))
end

local function is_spent(resource, limit, amount)
  local total = redis.call('HGET', key(ledger(resource)), TOTAL)
  return tonumber(total or '0') + tonumber(amount) > limit
end

-- The first need of a choice that has no room, the seconds in which the choice surely has none, and
-- by which window; nothing where all its needs have room. Money goes before all else: no job's end
-- brings any back, only midnight does.
local function blocked(choice, ticket)
  local first, at_least, by, broke
  for _, need in ipairs(choice) do
    local resource, limit, window, amount = need[1], need[2], need[3], need[5]
    if amount then
      if is_spent(resource, limit, amount) then
        broke = broke or resource
        local midnight = (today + 1) * DAY - now
        if midnight > (at_least or 0) then
          at_least, by = midnight, nil
        end
      end
    else
      local held, before = standing(resource, window, ticket)
      if held + before >= limit then
        first = first or resource
        local place = window and held + before - limit + about_to_come(resource)
        local room = window and opens(resource, held, limit, place)
        if room and room > (at_least or 0) then
          at_least, by = room, resource
        end
      end
    end
  end
  first = broke or first
  return first and {first, at_least and string.format('%.6f', at_least) or ''}, by
end

local function each_need(choices, act)
  for _, choice in ipairs(choices) do
    for _, need in ipairs(choice) do act(need) end
  end
end

-- Who lacks money waits nowhere: a place would stand in the way of those who have it.
local function enter(ask, full)
  if ask.ticket == '' then return end
  local waits = {}
  for index, block in ipairs(full) do
    if not is_money(block[1]) then
      local queue = key('queue:' .. block[1])
      if not redis.call('ZSCORE', queue, ask.ticket) then
        redis.call('ZADD', queue, redis.call('INCR', key('tickets')), ask.ticket)
        redis.call('EXPIRE', key('tickets'), DAY)
      end
      for _, need in ipairs(ask.choices[index]) do waits[need[1]] = true end
    end
  end
  -- A place is kept while its holder asks, also where something else stands in the way just now.
  each_need(ask.choices, function(need)
    local queue = key('queue:' .. need[1])
    if not waits[need[1]] then
      give_up({need[1]}, ask.ticket)
    elseif redis.call('ZSCORE', queue, ask.ticket) then
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

-- Who is refused where a window opens at a known time comes back then, at the first there is; the
-- next one hears of the time after it.
local function tell(ask, full, windows)
  local first
  for index, block in ipairs(full) do
    local alone = windows[index] == block[1]
    if alone and (not first or tonumber(block[2]) < tonumber(full[first][2])) then
      first = index
    end
  end
  if first then
    local told = key('told:' .. windows[first])
    redis.call('ZADD', told, now + tonumber(full[first][2]), ask.token)
    redis.call('EXPIRE', told, 10 * WINDOW)
  end
end

local function grant(ask)
  local full, windows = {}, {}
  for index, choice in ipairs(ask.choices) do
    local block, by = blocked(choice, ask.ticket)
    if not block then
      for _, need in ipairs(choice) do
        if need[5] then
          spend(need[1], ask.token, need[5])
        else
          local lapses = now + tonumber(need[4])
          redis.call('ZADD', key(need[1]), need[3] and now or lapses, ask.token)
          keep(need[1], need[4])
        end
      end
      if ask.ticket ~= '' then
        each_need(ask.choices, function(need) give_up({need[1]}, ask.ticket) end)
      end
      return {index - 1, {}, {}}
    end
    full[index], windows[index] = block, by or ''
  end
  enter(ask, full)
  if ask.last then tell(ask, full, windows) end
  return {-1, full, holding(full)}
end

local grants = {}
for index, ask in ipairs(turn.asks) do
  grants[index] = grant(ask)
end

local claimed = {}
for index, item in ipairs(turn.claims) do
  claimed[index] = claim(item)
end

-- What was learned --------------------------------------------------------------------------------

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

-- An operator restored a deployment, or what failures kept out has returned.
local function restore(item)
  local name, at = item[1], tonumber(item[2])
  if at > tonumber(redis.call('HGET', key(name), 'at') or '0') then
    redis.call('HSET', key(name), 'at', item[2])
    redis.call('EXPIRE', key(name), DAY)
    changed(name, now + DAY)
  end
end

local function at(name)
  return tonumber(redis.call('HGET', key(name), 'at') or '0')
end

-- Ejections only extend; but what was decided before a restoration is void, whenever it comes, and
-- so is what failures decided once all that it covers has returned. What is about another key stands
-- in nobody's way.
local function eject(item)
  local name, ejection, restored, returned = item[1], item[2], at(item[3][1]), nil
  local held = redis.call('HMGET', key(name), 'until', 'at', 'credential')
  for index = 2, #item[3] do
    returned = math.min(returned or math.huge, at(item[3][index]))
  end
  restored = math.max(restored, returned or 0)
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

-- Characters stand in `remembered` in the order in which they were told of; of too many the oldest
-- is forgotten.
local function remember(item)
  local name, facts, seconds = item[1], item[2], item[3]
  redis.call('HSET', key(name), 'name', facts.name, 'width', facts.width, 'height', facts.height)
  redis.call('EXPIRE', key(name), seconds)
  redis.call('ZADD', key('remembered'), changed(name, now + seconds), name)
  redis.call('EXPIRE', key('remembered'), NEWS)
  if redis.call('ZCARD', key('remembered')) > turn.characters then
    local oldest = redis.call('ZPOPMIN', key('remembered'))[1]
    redis.call('DEL', key(oldest))
    redis.call('ZREM', key('changes'), oldest)
    redis.call('ZREM', key('expiries'), oldest)
  end
end

local generation = redis.call('GET', key('generation'))
if turn.sequence > tonumber(redis.call('HGET', key('sequences'), turn.worker) or '0') then
  redis.call('HSET', key('sequences'), turn.worker, turn.sequence)
  add(turn.learned)
  for _, item in ipairs(turn.learned.restored) do restore(item) end
  for _, item in ipairs(turn.learned.returned) do restore(item) end
  for _, item in ipairs(turn.learned.ejections) do eject(item) end
  for _, item in ipairs(turn.learned.characters) do remember(item) end
  for _, change in ipairs(turn.learned.changes) do
    redis.call('LPUSH', key('history'), change)
  end
  if #turn.learned.changes > 0 then
    redis.call('LTRIM', key('history'), 0, 199)
    redis.call('EXPIRE', key('history'), 7 * DAY)
  end
  -- Failures are told at once too, so that not each worker has to make them.
  local failures = {}
  for _, item in ipairs(turn.learned.counts) do
    if item[5] then
      failures[#failures + 1] = {item[1], item[2], redis.call('HGET', key(item[1]), item[2])}
    end
  end
  local out = turn.learned
  if #out.ejections + #out.restored + #out.returned + #failures > 0 then
    -- What is told at once is told whole: if each sibling came to ask, all would come at once. Who
    -- may not publish is heard in time all the same.
    local told = {
      worker = turn.worker,
      restored = out.restored,
      returned = out.returned,
      ejections = out.ejections,
      failures = failures,
    }
    redis.pcall('PUBLISH', key('news'), cjson.encode(told))
  end
end

-- What nobody has seen for long is not counted on any more.
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', key('lapses'), '-inf', now, 'LIMIT', 0, 100)) do
  runs_no_more(holder)
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
  redis.call('EXPIRE', key(name), NEWS)
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
local OURS = {
  sums = true,
  counts = true,
  restored = true,
  returned = true,
  ejections = true,
  characters = true,
}

-- How many jobs run there, and those that have run for longest.
local function running(name)
  local holders = redis.call('ZRANGE', key(name), 0, turn.jobs - 1)
  local fields = {'count', tostring(redis.call('ZCARD', key(name)))}
  for _, holder in ipairs(holders) do
    local job = redis.call('HGET', key('jobs'), holder)
    if job then
      fields[#fields + 1] = holder
      fields[#fields + 1] = job
    end
  end
  return fields
end

local names = {}
for index = 1, #found, 2 do
  local kind = string.match(found[index], '^%["(%a+)"')
  local fields
  if kind == 'running' then
    fields = running(found[index])
  else
    fields = redis.pcall('HGETALL', key(found[index]))
  end
  if fields.err then
    -- What a later release keeps, it may keep in another way; in ours nobody else has a place.
    if OURS[kind] then error(fields.err) end
    fields = {'kept', 'otherwise'}
  end
  if #fields == 0 then
    redis.call('ZREM', key('changes'), found[index])
  else
    names[#names + 1] = found[index]
    names[#names + 1] = fields
  end
end
-- Which of the jobs that this worker takes for running were seen to end, by whomever.
local ended = {}
for _, holder in ipairs(turn.running) do
  if redis.call('GET', key('ended:' .. holder)) then ended[#ended + 1] = holder end
end
local alive = redis.call('ZCOUNT', key('workers'), now - ALIVE, '+inf')
return {{time[1], time[2], generation, up_to, more, alive}, names, grants, ended, claimed}
