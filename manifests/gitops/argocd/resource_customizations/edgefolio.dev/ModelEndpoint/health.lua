-- Health of a ModelEndpoint, which Argo CD shows below its pod. It has no part in the health of an application.
local hs = { status = "Progressing", message = "Waiting for the agent" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted"
  return hs
end
if obj.status == nil or obj.status.observation == nil then
  return hs
end

local failure = ""
if obj.status.lastFailure ~= nil and obj.status.lastFailure.message ~= nil then
  failure = obj.status.lastFailure.message
end
if obj.status.observation.server == "Dead" then
  return { status = "Degraded", message = "Triton does not answer" }
end
if obj.status.activeVariant == nil or obj.status.observation.server ~= "Serving" then
  if failure ~= "" then
    return { status = "Degraded", message = failure }
  end
  hs.message = "No variant serves yet"
  return hs
end
if obj.spec.switching ~= nil and obj.spec.switching.policy == "Paused" then
  return { status = "Suspended", message = obj.status.activeVariant .. " serves; switching is paused" }
end
return { status = "Healthy", message = obj.status.activeVariant .. " serves" }
