mod noise;
mod oracle;
mod sampling;
mod scripted;
