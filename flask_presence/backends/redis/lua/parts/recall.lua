-- What an operation answered, in case it is asked again: fields of text, a NUL after each. A single
-- one is answered as it is.
local function recall()
  local said = operation ~= '' and redis.call('GET', key('reply', operation))
  if not said then
    return nil
  end
  local reply = {}
  for field in string.gmatch(said, '(%Z*)%z') do
    reply[#reply + 1] = field
  end
  return reply[2] and reply or reply[1]
end

local function answer(...)
  local reply = {...}
  if operation ~= '' then
    local said = table.concat(reply, '\0') .. '\0'
    redis.call('SET', key('reply', operation), said, 'PX', '10000')
  end
  return reply[2] and reply or reply[1]
end
